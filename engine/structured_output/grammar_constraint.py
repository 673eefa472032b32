"""The constraint of one sequence, over llguidance's matcher, and the tokens that it allows."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

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
WORD = 32
"""Tokens in a word of a mask."""


class TokenSet:
    """The allowed tokens, sorted by id.

    A random choice among 49,152 tokens takes 36 us by counting bits, and 100 us by writing out an array of them.
    """

    def __init__(self, bits: NDArray[np.int32], except_: Iterable[int] = ()) -> None:
        """`bits` has a bit for each token, the first token in the lowest bit of the first word; it is copied."""
        self._words = bits.view(np.uint32).copy()
        for token in except_:
            self._words[token // WORD] &= ~np.uint32(1 << token % WORD)

    @cached_property
    def _ends(self) -> NDArray[np.uint32]:
        """Number of tokens up to the end of each word."""
        ends: NDArray[np.uint32] = np.bitwise_count(self._words).cumsum(dtype=np.uint32)
        return ends

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends.size else 0

    def __contains__(self, token: int) -> bool:
        return bool(int(self._words[token // WORD]) >> token % WORD & 1)

    def __getitem__(self, index: int) -> int:
        """Return the token at an index of the sorted ids."""
        if not 0 <= index < len(self):
            raise IndexError(f"there is no token {index} of {len(self)}")
        place = int(self._ends.searchsorted(index, side="right"))
        word = int(self._words[place])
        for _ in range(index - (int(self._ends[place - 1]) if place else 0)):
            word &= word - 1  # drop the lowest bit
        return place * WORD + (word & -word).bit_length() - 1

    @property
    def last(self) -> int | None:
        """The token with the highest id; None if there is none."""
        words = np.flatnonzero(self._words)
        return int(words[-1]) * WORD + int(self._words[words[-1]]).bit_length() - 1 if words.size else None


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
        self._bytes = self._bits.view(np.uint8)
        self._address = self._bits.ctypes.data
        self._forbidden: NDArray[np.bool_] | None = None

    @property
    def mask_ready(self) -> bool:
        return self._forbidden is not None

    def compute_mask(self) -> None:
        self._compute_bits()
        self._forbidden = np.unpackbits(~self._bytes, bitorder="little").view(np.bool_)

    def _compute_bits(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._address, self._bits.nbytes)
        if self._matcher.is_error() and self._renewed():
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

    def allowed(self, except_: Iterable[int]) -> TokenSet:
        """Return the tokens that the grammar allows, without `except_`. Raises GrammarError."""
        self._compute_bits()
        self.check()
        self._check_bits()
        return TokenSet(self._bits, except_)

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
        if self._forbidden is not None:
            self._check_bits()

    def _check_bits(self) -> None:
        if not np.count_nonzero(self._bits):
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
