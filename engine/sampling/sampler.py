"""Draw a token from logits, and compute its logprobs.

The order is llama.cpp's: penalties, then top-k, top-p and min-p, all on the distribution at temperature 1. The
temperature only shapes the draw among the tokens that are left.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from engine.job import SamplingParams, TokenLogprobs
from engine.model import FloatArray
from engine.sampling.penalties import Penalties
from engine.sampling.shortlist import best_first, most_likely, shortens, shortlist, total_mass

BLOCK = 1024
"""Tokens of the vocabulary whose probabilities are added first, so that a draw need not add all one by one."""
MAX_EXPONENT = 60.0
"""Distance from 0 of the best logit up to which the exponentials of a vocabulary can be added in float32."""
MIN_TEMPERATURE = 1e-9
"""Lowest temperature in effect: lower ones give the same token, but numpy would overflow."""


class Sampler:
    """Draws one sequence's tokens. Equal seeds, prompts and logits give equal tokens."""

    def __init__(self, sampling: SamplingParams, prompt: Sequence[int] = (), top_logprobs: int | None = None) -> None:
        """`prompt` is the text before the first token. For `top_logprobs` see `Job`."""
        self._sampling = sampling
        self._top_logprobs = top_logprobs
        self._penalties = Penalties(sampling, prompt) if Penalties.needed(sampling) else None
        # numpy takes no negative seeds, but clients may send them: reinterpret the 64 bits as unsigned.
        self._random = np.random.default_rng(None if sampling.seed is None else sampling.seed & (2**64 - 1))

    def raw_logits(self, logits: FloatArray) -> FloatArray | None:
        """Return a copy of the model's logits for `logprobs`, or None if the job asks for no logprobs.

        Call it before anything changes the logits.
        """
        return None if self._top_logprobs is None else logits.copy()

    def logprobs(self, raw_logits: FloatArray | None, token: int) -> TokenLogprobs | None:
        """Return the logprobs of the token that was picked; None without `raw_logits`."""
        if raw_logits is None or self._top_logprobs is None:
            return None
        return token_logprobs(raw_logits, token, self._top_logprobs)

    def pick(self, logits: FloatArray) -> int:
        """Draw the sequence's next token and record it. The logits are scratch memory: they may be overwritten."""
        if self._penalties is None:
            return self._draw(logits)
        self._penalties.apply(logits)
        token = self._draw(logits)
        self.record(token)
        return token

    def record(self, token: int) -> None:
        """Record a token of the answer that was not drawn."""
        if self._penalties is not None:
            self._penalties.add(token)

    def _draw(self, logits: FloatArray) -> int:
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        temperature = max(self._sampling.temperature, MIN_TEMPERATURE)
        if not shortens(self._sampling):
            return draw(logits, temperature, self._random.random())
        ids = shortlist(logits, self._sampling)
        if len(ids) == 1:
            return int(ids[0])
        chosen = logits[ids].astype(np.float64)
        mass = np.exp((chosen - chosen[0]) / temperature).cumsum()
        return int(ids[_index(mass, self._random.random() * mass[-1])])


def draw(logits: FloatArray, temperature: float, number: float) -> int:
    """Return the token of the whole vocabulary that a random number from 0 to 1 selects.

    It overwrites the logits with the shares of their tokens: another array would have to come from memory, since the
    weights of a step have filled the CPU's caches.
    """
    best = float(logits.max())
    if temperature != 1 or abs(best) > MAX_EXPONENT:
        with np.errstate(over="ignore"):  # -inf is right for a token that is that unlikely
            np.subtract(logits, best, out=logits)
            np.divide(logits, np.float32(temperature), out=logits)
    np.exp(logits, out=logits)
    sums = np.add.reduceat(logits, _block_starts(len(logits))).cumsum(dtype=np.float64)
    target = number * sums[-1]
    block = _index(sums, target)
    before = sums[block - 1] if block else 0.0
    start = block * BLOCK
    return start + _index(logits[start : start + BLOCK].cumsum(dtype=np.float64), target - before)


@cache
def _block_starts(n_vocab: int) -> NDArray[np.intp]:
    return np.arange(0, n_vocab, BLOCK)


def _index(sums: NDArray[np.float64], number: float) -> int:
    """Return the index of the first of the growing sums above the number, or of the last that grew: rounding may put
    the number above all."""
    index = int(sums.searchsorted(number, side="right"))
    return index if index < len(sums) else int(sums.searchsorted(sums[-1]))


def token_logprobs(logits: FloatArray, token: int, n_top: int) -> TokenLogprobs:
    """Return the logprob of the token and of the `n_top` most likely tokens."""
    log_sum = float(logits.max()) + math.log(total_mass(logits))
    top = best_first(logits, most_likely(logits, n_top)) if n_top else ()
    return TokenLogprobs(float(logits[token]) - log_sum, tuple((int(id_), float(logits[id_]) - log_sum) for id_ in top))
