"""What the next token may be, as the thread knows it. How it is found out: `grammar`."""

from typing import Protocol

from engine.model import FloatArray


class GrammarError(Exception):
    """What was asked for can't be held, or can't be held any longer. One sentence for a person."""

    def __init__(self, message: str, place: str = "") -> None:
        """`place`: where in a schema (`properties.a.not`); empty where that is not known."""
        super().__init__(message)
        self.place = place


class Constraint(Protocol):
    """Of one sequence. One thread at a time may call it; `prepare` may be another one's than the rest."""

    @property
    def mask_ready(self) -> bool:
        """Whether there is nothing to prepare."""

    def compute_mask(self) -> None:
        """Find out which tokens may come next. It raises nothing: `apply` tells."""

    def apply_mask(self, logits: FloatArray) -> None:
        """Make all others impossible, in place. Not prepared, it does that first. Raises GrammarError."""

    def accept(self, token: int) -> None:
        """Take in which token came. Raises GrammarError."""


class Grammar(Protocol):
    """Of a job."""

    def start(self) -> Constraint: ...
