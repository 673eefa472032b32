"""The state of one answer: it passes through phases, each of which is a constraint and returns the next one. Pure."""

from typing import Protocol

from engine.model import FloatArray
from engine.structured_output.grammar_constraint import GrammarConstraint


class Phase(Protocol):
    """A constraint whose `accept` returns the phase that applies from there on."""

    @property
    def mask_ready(self) -> bool: ...
    def compute_mask(self) -> None: ...
    def apply_mask(self, logits: FloatArray) -> None: ...
    def accept(self, token: int) -> "Phase": ...


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

    def accept(self, token: int) -> None:
        self._phase = self._phase.accept(token)


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

    def accept(self, token: int) -> Phase:
        if not self._constraint.accepting:
            self._constraint.accept(token)
        elif not self._constraint.try_accept(token):
            return self._then.accept(token)
        return self
