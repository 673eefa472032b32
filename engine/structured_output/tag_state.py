"""The state of one answer: it passes through phases, each of which is a constraint and returns the next one. Pure."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.constraint import GrammarError
from engine.model import FloatArray
from engine.structured_output.eager_stop import EagerStop, leave_only
from engine.structured_output.grammar_constraint import GrammarConstraint


class Phase(Protocol):
    """A constraint whose `accept` returns the phase that applies from there on."""

    @property
    def mask_ready(self) -> bool: ...
    def compute_mask(self) -> None: ...
    def apply_mask(self, logits: FloatArray) -> None: ...
    def fits(self, token: int) -> bool: ...
    def accept(self, token: int) -> "Phase": ...
    def forced(self) -> Sequence[int]: ...


class TagState:
    """Constraint of one answer; see `engine.constraint`."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase

    @property
    def mask_ready(self) -> bool:
        return self._phase.mask_ready

    def compute_mask(self) -> None:
        self._phase.compute_mask()

    def apply_mask(self, logits: FloatArray) -> None:
        self._phase.apply_mask(logits)

    def fits(self, token: int) -> bool:
        return self._phase.fits(token)

    def accept(self, token: int) -> None:
        self._phase = self._phase.accept(token)

    def forced(self) -> Sequence[int]:
        return self._phase.forced()


class CallState:
    """A call: constrained until the grammar accepts. From there on, text that the grammar forbids is free text."""

    def __init__(self, constraint: GrammarConstraint, then: Phase) -> None:
        self._constraint = constraint
        self._then = then

    @property
    def mask_ready(self) -> bool:
        return self._constraint.accepting or self._constraint.mask_ready

    def compute_mask(self) -> None:
        if not self._constraint.accepting:
            self._constraint.compute_mask()

    def apply_mask(self, logits: FloatArray) -> None:
        if not self._constraint.accepting:
            self._constraint.apply_mask(logits)

    def fits(self, token: int) -> bool:
        return not self._constraint.accepting and self._constraint.fits(token)

    def accept(self, token: int) -> Phase:
        if not self._constraint.accepting:
            self._constraint.accept(token)
        elif not self._constraint.try_accept(token):
            return self._then.accept(token)
        return self

    def forced(self) -> Sequence[int]:
        return () if self._constraint.accepting else self._constraint.forced()


class OpeningState:
    """The start of a text that may be reasoning or the answer. Both are followed until one is ruled out."""

    def __init__(
        self, answer: GrammarConstraint, opening: list[int], reasoning: Phase, ends: NDArray[np.int64]
    ) -> None:
        """Follow the answer and the tokens `opening`, after which `reasoning` applies. `ends` are the end tokens."""
        self._answer: GrammarConstraint | None = answer
        self._opening = opening
        self._reasoning = reasoning
        self._ends = ends

    @property
    def mask_ready(self) -> bool:
        return self._answer is None or self._answer.mask_ready

    def compute_mask(self) -> None:
        if self._answer is not None:
            self._answer.compute_mask()

    def apply_mask(self, logits: FloatArray) -> None:
        token = self._opening[0]
        if self._answer is None:
            leave_only(logits, token)
            return
        opening_logit = logits[token]
        self._answer.apply_mask(logits)
        logits[token] = opening_logit

    def fits(self, token: int) -> bool:
        return self._answer is not None and self._answer.fits(token)

    def accept(self, token: int) -> Phase:
        if self._answer is not None and not self._answer.try_accept(token):
            self._answer = None
        if token == self._opening[0]:
            self._opening = self._opening[1:]
            return self if self._opening else self._reasoning
        if self._answer is None:
            raise GrammarError("the output begins neither the reasoning nor the answer")
        return EagerStop(self._answer, self._ends)

    def forced(self) -> Sequence[int]:
        return self._opening[:1] if self._answer is None else ()
