"""When an answer ends that may go on: where the model would rather say something else than what may follow.

What is left of its wishes then is no wish for another call: SmolLM2, held to one call or more, made the same one
sixteen times.
"""

import numpy as np
from numpy.typing import NDArray

from engine.model import FloatArray
from engine.structured_output.grammar_constraint import GrammarConstraint


def leave_only(logits: FloatArray, tokens: int | NDArray[np.int64]) -> None:
    """Mask all tokens but these."""
    rest = logits[tokens]
    logits.fill(-np.inf)
    logits[tokens] = rest


class EagerStop:
    """A constraint that ends so, as a phase of the answer: the last one."""

    def __init__(self, constraint: GrammarConstraint, ends: NDArray[np.int64]) -> None:
        """`ends`: the end tokens."""
        self._constraint = constraint
        self._ends = ends
        self.compute_mask = constraint.compute_mask

    @property
    def mask_ready(self) -> bool:
        return self._constraint.mask_ready

    def apply_mask(self, logits: FloatArray) -> None:
        wish = int(logits.argmax()) if self._constraint.accepting else None
        self._constraint.apply_mask(logits)
        if wish is not None and logits[wish] == -np.inf:
            leave_only(logits, self._ends)

    def accept(self, token: int) -> "EagerStop":
        self._constraint.accept(token)
        return self
