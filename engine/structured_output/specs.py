"""What an answer may be held to, besides a grammar for all of it. Data only."""

from msgspec import Struct

from engine.structured_output.compiler import CompiledGrammar


class ReasoningSpec(Struct, frozen=True):
    """How the model thinks before it answers. Names of control tokens in markers mean these tokens."""

    close: str
    open: str = ""
    """With which it may begin; empty: it can't."""
    begun: bool = False
    """Whether the prompt has begun it."""
    budget: int | None = None
    """Tokens of thought, after which the model has to close; None: as many as it likes."""
    after: CompiledGrammar | None = None
    """What has to follow then, before anything may come."""
    interruptions: tuple[str, ...] = ()
    """Other markers that end it: of calls, and of the answer."""

    def over(self, spent: int) -> bool:
        return self.budget is not None and spent >= self.budget


class Trigger(Struct, frozen=True):
    """What the model is held to once it has written a marker."""

    marker: str
    grammar: CompiledGrammar
    """Of what follows the marker. When it accepts, anything may follow."""


class BareCallTrigger(Struct, frozen=True):
    """The same for calls without a marker, which stand where an answer begins, or behind one another."""

    name: str
    """Of a function, with which it is called."""
    grammar: CompiledGrammar
    """Of what follows the name's string, up to the call's end."""
