"""Stop a constrained answer early: once the grammar accepts, end it if it forbids the model's most likely token.

Masking would redirect the model to another call although it prefers to stop: SmolLM2, constrained to one call or more,
repeated its call sixteen times.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.model import FloatArray
from engine.structured_output.grammar_constraint import GrammarConstraint


def leave_only(logits: FloatArray, tokens: int | NDArray[np.int64]) -> None:
    """Mask all tokens except these."""
    rest = logits[tokens]
    logits.fill(-np.inf)
    logits[tokens] = rest


class EagerStop:
    """A constraint that stops early. It is the last phase of an answer."""

    def __init__(self, constraint: GrammarConstraint, ends: NDArray[np.int64]) -> None:
        """`ends`: the end tokens."""
        self._constraint = constraint
        self._ends = ends
        self.compute_mask = constraint.compute_mask

    @property
    def mask_ready(self) -> bool:
        return self._constraint.mask_ready

    def apply_mask(self, logits: FloatArray) -> None:
        preferred = int(logits.argmax()) if self._constraint.accepting else None
        self._constraint.apply_mask(logits)
        if preferred is not None and logits[preferred] == -np.inf:
            leave_only(logits, self._ends)

    def fits(self, token: int) -> bool:
        return self._constraint.fits(token)

    def forced(self) -> Sequence[int]:
        """Return the certain tokens; any end token after a complete answer, since end tokens are never delivered."""
        return [int(self._ends[0])] if self._constraint.stopped else self._constraint.forced()

    def accept(self, token: int) -> "EagerStop":
        self._constraint.accept(token)
        return self
