"""Constraint of one sequence, over llguidance's matcher."""

import re
from collections.abc import Set

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from engine.constraint import GrammarError
from engine.model import FloatArray

_CONTEXT = re.compile(r"^(at )?(\d+\(\d+\): )+|failed to compile JSON schema: |^Parser Error: ")

_SENTENCES = {
    "too many expressions constructed": "its patterns take too much work",
    "too many states": "its patterns take too much memory",
    "items; max is": "it leaves too many ways open at once",
}
_NOTHING = "nothing can be written that it accepts"


class GrammarConstraint:
    """See `engine.constraint`."""

    def __init__(self, matcher: LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros((n_vocab + 31) // 32, np.int32)
        self._forbidden: NDArray[np.bool_] | None = None

    @property
    def mask_ready(self) -> bool:
        return self._forbidden is not None

    def compute_mask(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._forbidden = np.unpackbits(self._bits.view(np.uint8), bitorder="little") == 0

    def apply_mask(self, logits: FloatArray) -> None:
        if self._forbidden is None:
            self.compute_mask()
        self.check()
        assert self._forbidden is not None, "it was prepared"
        n = min(len(logits), len(self._forbidden))
        np.copyto(logits[:n], -np.inf, where=self._forbidden[:n])
        logits[n:] = -np.inf

    def allowed(self, but: Set[int]) -> NDArray[np.bool_]:
        """Return for each token whether it may come, and is none of `but`. Raises GrammarError."""
        self.compute_mask()
        self.check()
        assert self._forbidden is not None, "it was prepared"
        allowed = ~self._forbidden
        allowed[list(but)] = False
        return allowed

    def last_allowed(self, but: Set[int]) -> int | None:
        """A token that may come: the last of them, for white space comes first. Raises GrammarError."""
        allowed = np.flatnonzero(self.allowed(but))
        return int(allowed[-1]) if allowed.size else None

    @property
    def accepting(self) -> bool:
        """Whether what was written is whole; there may be more of it."""
        return bool(self._matcher.is_accepting())

    def try_accept(self, token: int) -> bool:
        """As `accept`, where it may come; else False, and all is as it was."""
        if self._matcher.try_consume_tokens([token]) != 1:
            return False
        self._forbidden = None
        return True

    def accept(self, token: int) -> None:
        self._forbidden = None
        if not self._matcher.consume_token(token):
            self.check()

    def check(self) -> None:
        """Raises GrammarError."""
        if self._matcher.is_error():
            raise GrammarError(_sentence(self._matcher.get_error()))
        if self._forbidden is not None and self._forbidden.all():
            raise GrammarError(_NOTHING)


def _sentence(error: str) -> str:
    """What is wrong, without where llguidance found it and what it would take instead: pages of grammar."""
    if error.startswith("NoExtensionBias"):
        return _NOTHING
    for sign, sentence in _SENTENCES.items():
        if sign in error:
            return sentence
    lines = [line.strip() for line in error.splitlines()]
    detail = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    line = _CONTEXT.sub("", lines[0] if lines else "").partition(". Enable ")[0].rstrip(":")
    return f"{line}: {detail}".strip(": .")[:300] or "the grammar failed"
