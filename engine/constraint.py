"""The interface through which a grammar masks the tokens of one sequence. The implementation is `structured_output`."""

from collections.abc import Sequence
from typing import Protocol

from engine.model import FloatArray


class GrammarError(Exception):
    """A grammar cannot be enforced, or the output no longer matches it. The message is one sentence for a person."""

    def __init__(self, message: str, place: str = "") -> None:
        """`place` is the path of the offending part of a schema (`properties.a.not`); empty if unknown."""
        super().__init__(message)
        self.place = place


class Constraint(Protocol):
    """The token mask of one sequence. Only one thread at a time may call it, but `compute_mask` may run in another
    thread than the rest."""

    @property
    def mask_ready(self) -> bool:
        """True if the mask of the next token is computed."""

    def compute_mask(self) -> None:
        """Compute the mask of the next token. Never raises: `apply_mask` reports errors."""

    def apply_mask(self, logits: FloatArray) -> None:
        """Set the logits of all forbidden tokens to minus infinity, in place; compute the mask first if needed. Raises
        GrammarError."""

    def fits(self, token: int) -> bool:
        """True if the text may continue with a token, although the mask may forbid it.

        The mask of a certain text allows one token only, the model's own. Others spell the same text in other parts.
        """
        ...

    def accept(self, token: int) -> None:
        """Advance by the token that was sampled or forced, or fits. Raises GrammarError."""

    def forced(self) -> Sequence[int]:
        """Return tokens that are certain to follow, without accepting them; none if the text can continue in more than
        one way. After accepting them, more may be certain.

        They are the model's own tokens of the certain text. A token at its end is left out if it could become part of a
        longer one.
        """
        ...


class Grammar(Protocol):
    """The grammar of a job."""

    def start(self) -> Constraint:
        """Return the constraint of a new sequence."""
