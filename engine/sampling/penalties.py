"""Tokens made likelier or less likely before one is drawn: by wish of the client, or since they were there before.

In llama.cpp's order: first `logit_bias`, then the repetition penalty (its formula and its window: the last
`repeat_last_n` tokens of prompt and answer), then OpenAI's frequency and presence penalties, which count the tokens of
the answer alone, however long it is ("Parameter details": how often a token was sampled prior to this position).
"""

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.job import SamplingParams
from engine.model import FloatArray

Ids = NDArray[np.intp]


class TokenCounts:
    """How often each token is among the last `most`, or among all."""

    def __init__(self, tokens: Iterable[int] = (), most: int | None = None) -> None:
        self._counts: dict[int, int] = {}
        self._window: deque[int] = deque()
        self._window_size = most
        for token in tokens:
            self.add(token)

    @property
    def ids(self) -> Ids:
        return np.fromiter(self._counts, np.intp, len(self._counts))

    @property
    def counts(self) -> FloatArray:
        """In the order of `ids`."""
        return np.fromiter(self._counts.values(), np.float32, len(self._counts))

    def add(self, token: int) -> None:
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
    """Those of one sequence. What is switched off costs nothing."""

    def __init__(self, sampling: SamplingParams, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        biases = sampling.logit_bias
        self._biased: Ids = np.fromiter(biases, np.intp, len(biases))
        self._biases: FloatArray = np.fromiter(biases.values(), np.float32, len(biases))
        self._recent = _recent_counts(sampling, prompt)
        self._generated = TokenCounts() if sampling.presence_penalty or sampling.frequency_penalty else None

    @staticmethod
    def needed(sampling: SamplingParams) -> bool:
        """Whether there are any."""
        repeats = sampling.repeat_penalty != 1 and sampling.repeat_last_n
        return bool(sampling.logit_bias or repeats or sampling.presence_penalty or sampling.frequency_penalty)

    def apply(self, logits: FloatArray) -> None:
        """In place. What can't be (minus infinity) stays so."""
        if len(self._biased):
            logits[self._biased] += self._biases
        if self._recent is not None:
            ids, penalty = self._recent.ids, self._sampling.repeat_penalty
            chosen = logits[ids]
            # Divided, a negative logit would become likelier (llama.cpp; in the paper, arXiv:1909.05858, it does).
            logits[ids] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
        if self._generated is not None:
            each = self._generated.counts * self._sampling.frequency_penalty
            logits[self._generated.ids] -= each + self._sampling.presence_penalty

    def add(self, token: int) -> None:
        """Take in the answer's next token."""
        if self._recent is not None:
            self._recent.add(token)
        if self._generated is not None:
            self._generated.add(token)


def _recent_counts(sampling: SamplingParams, prompt: Sequence[int]) -> TokenCounts | None:
    n = sampling.repeat_last_n
    if sampling.repeat_penalty == 1 or n == 0:
        return None
    return TokenCounts(prompt) if n < 0 else TokenCounts(prompt[-n:], n)
