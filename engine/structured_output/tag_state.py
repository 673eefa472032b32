"""One answer's way through phases, each of which is a constraint and names the next. Pure."""

from typing import Protocol

from engine.model import FloatArray
from engine.structured_output.grammar_constraint import GrammarConstraint


class Phase(Protocol):
    """As a Constraint; `advance` says what holds from there on."""

    @property
    def mask_ready(self) -> bool: ...
    def compute_mask(self) -> None: ...
    def apply_mask(self, logits: FloatArray) -> None: ...
    def accept(self, token: int) -> "Phase": ...


class TagState:
    """See `engine.constraint`."""

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
    """Held until the grammar accepts. From there on anything may come: what the grammar takes is a call's, the rest is
    free."""

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
