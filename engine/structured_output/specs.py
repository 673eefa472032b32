"""Constraints on parts of an answer: reasoning, calls after a marker, calls without one. Data only."""

from msgspec import Struct

from engine.structured_output.compiled_grammar import CompiledGrammar


class ReasoningSpec(Struct, frozen=True):
    """Markers and budget of the model's reasoning. Names of control tokens in markers mean these tokens."""

    close: str
    open: str = ""
    """Marker that opens the reasoning; empty if the model can't open it."""
    opened: bool = False
    """True if the prompt has already opened the reasoning."""
    budget: int | None = None
    """Tokens after which the model must close its reasoning; None for no limit."""
    after: CompiledGrammar | None = None
    """Grammar of the text that must follow once the budget has closed the reasoning."""
    interruptions: tuple[str, ...] = ()
    """Further markers that end the reasoning: of calls, and of the answer."""

    def is_spent(self, spent: int) -> bool:
        """True if the budget is used up after so many tokens."""
        return self.budget is not None and spent >= self.budget


class Trigger(Struct, frozen=True):
    """A grammar that applies once the model has written a marker."""

    marker: str
    grammar: CompiledGrammar
    """Grammar of the text after the marker. Once it accepts, anything may follow."""


class BareCallTrigger(Struct, frozen=True):
    """A grammar for a call without a marker, at the start of an answer or after another call."""

    name: str
    """Name of the called function."""
    grammar: CompiledGrammar
    """Grammar of the text from the end of the name's string to the end of the call."""
