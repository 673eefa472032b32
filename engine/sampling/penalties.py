"""Logit adjustments before a token is drawn: the client's biases and penalties for repetition.

The order is llama.cpp's: first `logit_bias`, then the repetition penalty (its formula and its window: the last
`repeat_last_n` tokens of prompt and answer), then OpenAI's frequency and presence penalties. These count the answer's
tokens only, without a window (OpenAI's "Parameter details": how often a token was sampled before this position).
"""

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.job import SamplingParams
from engine.model import FloatArray

MIN_REPEAT_PENALTY = 1e-9
"""Lowest repetition penalty in effect: lower ones give the same tokens, but float32 would overflow."""

Ids = NDArray[np.intp]


class TokenCounts:
    """Counts each token among the last `window_size` tokens, or among all."""

    def __init__(self, tokens: Iterable[int] = (), window_size: int | None = None) -> None:
        self._counts: dict[int, int] = {}
        self._window: deque[int] = deque()
        self._window_size = window_size
        for token in tokens:
            self.add(token)

    @property
    def ids(self) -> Ids:
        """The counted tokens."""
        return np.fromiter(self._counts, np.intp, len(self._counts))

    @property
    def counts(self) -> FloatArray:
        """The counts, in the order of `ids`."""
        return np.fromiter(self._counts.values(), np.float32, len(self._counts))

    def add(self, token: int) -> None:
        """Count a token, which may push another one out of the window."""
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._window_size is not None:
            self._window.append(token)
            if len(self._window) > self._window_size:
                self._forget(self._window.popleft())

    def _forget(self, token: int) -> None:
        self._counts[token] -= 1
        if not self._counts[token]:
            del self._counts[token]


class Penalties:
    """The penalties of one sequence. Penalties that are turned off cost no time."""

    def __init__(self, sampling: SamplingParams, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        biases = sampling.logit_bias
        self._biased: Ids = np.fromiter(biases, np.intp, len(biases))
        self._biases: FloatArray = np.fromiter(biases.values(), np.float32, len(biases))
        self._recent = _recent_counts(sampling, prompt)
        self._generated = TokenCounts() if sampling.presence_penalty or sampling.frequency_penalty else None

    @staticmethod
    def needed(sampling: SamplingParams) -> bool:
        """True if any penalty or bias is turned on."""
        repeats = sampling.repeat_penalty != 1 and sampling.repeat_last_n
        return bool(sampling.logit_bias or repeats or sampling.presence_penalty or sampling.frequency_penalty)

    def apply(self, logits: FloatArray) -> None:
        """Adjust the logits in place. A logit of minus infinity stays so."""
        if len(self._biased):
            logits[self._biased] += self._biases
        if self._recent is not None:
            ids, penalty = self._recent.ids, max(self._sampling.repeat_penalty, MIN_REPEAT_PENALTY)
            chosen = logits[ids]
            # Dividing a negative logit (arXiv:1909.05858) would make the token likelier; llama.cpp multiplies it.
            logits[ids] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
        if self._generated is not None:
            each = self._generated.counts * self._sampling.frequency_penalty
            logits[self._generated.ids] -= each + self._sampling.presence_penalty

    def add(self, token: int) -> None:
        """Record the next token of the answer."""
        if self._recent is not None:
            self._recent.add(token)
        if self._generated is not None:
            self._generated.add(token)


def _recent_counts(sampling: SamplingParams, prompt: Sequence[int]) -> TokenCounts | None:
    n = sampling.repeat_last_n
    if sampling.repeat_penalty == 1 or n == 0:
        return None
    return TokenCounts(prompt) if n < 0 else TokenCounts(prompt[-n:], n)
