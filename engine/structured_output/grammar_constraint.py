"""The constraint of one sequence, over llguidance's matcher."""

import re
from collections.abc import Callable, Sequence, Set

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from engine.constraint import GrammarError
from engine.model import FloatArray

_CONTEXT = re.compile(r"^(at )?(\d+\(\d+\): )+|failed to compile JSON schema: |^Parser Error: ")

_SENTENCES = {
    "too many expressions constructed": "its patterns take too much work",
    "Unable to determine if regex is empty": "its patterns take too much work",
    "too many states": "its patterns take too much memory",
    "oneOf constraints are not supported": "`oneOf` is not supported unless its alternatives exclude one another",
    "items; max is": "it allows too many alternatives at once",
}
"""Part of llguidance's error -> sentence that replaces it."""
_FULL = ("too many states", "too many expressions constructed")
"""Parts of llguidance's errors of a lexer that has too many states, or whose next step needs too much work."""
_UNSATISFIABLE = "no output satisfies it"


class GrammarConstraint:
    """A started grammar; see `engine.constraint`."""

    def __init__(self, matcher: LLMatcher, n_vocab: int, renew: Callable[[LLMatcher], LLMatcher]) -> None:
        """Start at the beginning of a grammar.

        `renew` returns another matcher of the grammar, for one whose lexer is full of states.
        """
        self._origin = matcher
        self._matcher = matcher.deep_copy()
        self._renew = renew
        self._accepted: list[int] = []
        self.n_renewals = 0
        """Lexers that were full."""
        self._bits = np.zeros((n_vocab + 31) // 32, np.int32)
        self._address = self._bits.ctypes.data
        self._forbidden: NDArray[np.bool_] | None = None

    @property
    def mask_ready(self) -> bool:
        return self._forbidden is not None

    def compute_mask(self) -> None:
        self._compute_bits()
        if self._matcher.is_error() and self._renewed():
            self._compute_bits()
        self._forbidden = np.unpackbits(self._bits.view(np.uint8), bitorder="little") == 0

    def _compute_bits(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._address, self._bits.nbytes)

    def _renewed(self, failed: LLMatcher | None = None) -> bool:
        """Take another matcher if the lexer is full, and accept the tokens so far. True if it accepted them.

        The lexer has a state for each way in which a token could go on, and shares them among all answers.
        """
        if not any(sign in (failed or self._matcher).get_error() for sign in _FULL):
            return False
        self._origin = self._renew(self._origin)
        self._matcher = self._origin.deep_copy()
        self.n_renewals += 1
        return bool(self._matcher.consume_tokens(self._accepted)) if self._accepted else True

    def apply_mask(self, logits: FloatArray) -> None:
        if self._forbidden is None:
            self.compute_mask()
        self.check()
        assert self._forbidden is not None, "it was prepared"
        n = min(len(logits), len(self._forbidden))
        np.copyto(logits[:n], -np.inf, where=self._forbidden[:n])
        logits[n:] = -np.inf

    def allowed(self, except_: Set[int]) -> NDArray[np.bool_]:
        """Return for each token True if the grammar allows it, and False for `except_`. Raises GrammarError."""
        self.compute_mask()
        self.check()
        assert self._forbidden is not None, "it was prepared"
        allowed = ~self._forbidden
        allowed[list(except_)] = False
        return allowed

    def last_allowed(self, except_: Set[int]) -> int | None:
        """Return the allowed token with the highest id, since white space has low ids. Raises GrammarError."""
        allowed = np.flatnonzero(self.allowed(except_))
        return int(allowed[-1]) if allowed.size else None

    @property
    def accepting(self) -> bool:
        """True if the grammar accepts the text so far. More text may be allowed."""
        return bool(self._matcher.is_accepting())

    def try_accept(self, token: int) -> bool:
        """Accept a token if the grammar allows it. Otherwise return False and change nothing."""
        found = self._matcher.try_consume_tokens([token])
        if found != 1:
            probe = self._matcher.deep_copy()  # a full lexer rejects tokens without an error
            if not probe.consume_token(token) and self._renewed(probe):
                found = self._matcher.try_consume_tokens([token])
        if found != 1:
            return False
        self._forbidden = None
        self._accepted.append(token)
        return True

    def fits(self, token: int) -> bool:
        return bool(self._matcher.validate_tokens([token]))

    def forced(self) -> Sequence[int]:
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    @property
    def stopped(self) -> bool:
        """True if the grammar accepts the text so far and allows no more."""
        return bool(self._matcher.is_stopped()) and self.accepting

    def accept(self, token: int) -> None:
        self._forbidden = None
        accepted = self._matcher.consume_token(token)
        if not accepted and self._renewed():
            accepted = self._matcher.consume_token(token)
        if accepted:
            self._accepted.append(token)
        else:
            self.check()

    def check(self) -> None:
        """Raise GrammarError if the matcher failed or forbids every token."""
        if self._matcher.is_error():
            raise GrammarError(_sentence(self._matcher.get_error()))
        if self._forbidden is not None and self._forbidden.all():
            raise GrammarError(_UNSATISFIABLE)


def _sentence(error: str) -> str:
    """Return llguidance's error as one sentence, without its position and its pages of expected grammar."""
    if error.startswith("NoExtensionBias"):
        return _UNSATISFIABLE
    for sign, sentence in _SENTENCES.items():
        if sign in error:
            return sentence
    lines = [line.strip() for line in error.splitlines()]
    detail = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    line = _CONTEXT.sub("", lines[0] if lines else "").partition(". Enable ")[0].rstrip(":")
    return f"{line}: {detail}".strip(": .")[:300] or "the grammar failed"
