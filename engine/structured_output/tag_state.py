"""One answer's way through phases, each of which is a constraint and names the next. Pure."""

from typing import Protocol

from engine.model import FloatArray
from engine.structured_output.compiler import GrammarConstraint


class Phase(Protocol):
    """As a Constraint; `advance` says what holds from there on."""

    @property
    def idle(self) -> bool: ...
    def prepare(self) -> None: ...
    def apply(self, logits: FloatArray) -> None: ...
    def advance(self, token: int) -> "Phase": ...


class TagState:
    """See `engine.constraint`."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase

    @property
    def idle(self) -> bool:
        return self._phase.idle

    def prepare(self) -> None:
        self._phase.prepare()

    def apply(self, logits: FloatArray) -> None:
        self._phase.apply(logits)

    def advance(self, token: int) -> None:
        self._phase = self._phase.advance(token)


class CallState:
    """Held until the grammar accepts. From there on anything may come: what the grammar takes is a call's, the rest is
    free."""

    def __init__(self, constraint: GrammarConstraint, then: Phase) -> None:
        self._constraint = constraint
        self._then = then

    @property
    def idle(self) -> bool:
        return self._constraint.accepting or self._constraint.idle

    def prepare(self) -> None:
        if not self._constraint.accepting:
            self._constraint.prepare()

    def apply(self, logits: FloatArray) -> None:
        if not self._constraint.accepting:
            self._constraint.apply(logits)

    def advance(self, token: int) -> Phase:
        if not self._constraint.accepting:
            self._constraint.advance(token)
        elif not self._constraint.take(token):
            return self._then.advance(token)
        return self
