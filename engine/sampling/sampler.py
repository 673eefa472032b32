"""Draw a token from logits, and compute its logprobs.

The order is llama.cpp's: penalties, then top-k, top-p and min-p, all on the distribution at temperature 1. The
temperature only shapes the draw among the tokens that are left.
"""

import math
from collections.abc import Sequence

import numpy as np

from engine.job import SamplingParams, TokenLogprobs
from engine.model import FloatArray
from engine.sampling.penalties import Ids, Penalties

# Distance to the best logit. In nearly every distribution the nucleus lies in this range, and sorting these tokens
# costs a hundredth of sorting the vocabulary.
NUCLEUS_RANGE = 10.0
COLUMNS = 1024
"""Columns of the table into which the vocabulary is folded."""
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
        """Draw the sequence's next token and record it. Penalties change the logits in place."""
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
        ids = shortlist(logits, self._sampling)
        if len(ids) == 1:
            return int(ids[0])
        chosen = logits[ids].astype(np.float64)
        mass = np.exp((chosen - chosen.max()) / max(self._sampling.temperature, MIN_TEMPERATURE)).cumsum()
        return int(ids[np.searchsorted(mass, self._random.random() * mass[-1], side="right")])


def token_logprobs(logits: FloatArray, token: int, n_top: int) -> TokenLogprobs:
    """Return the logprob of the token and of the `n_top` most likely tokens."""
    best = float(logits.max())
    # float32 is exact enough for each term (as exact as the logits), but not for a sum of a hundred thousand.
    log_sum = best + math.log(np.exp(logits - np.float32(best)).sum(dtype=np.float64))
    top = _most_likely(logits, n_top) if n_top else np.arange(0)
    ordered = top[np.argsort(-logits[top], kind="stable")]
    return TokenLogprobs(
        float(logits[token]) - log_sum, tuple((int(id_), float(logits[id_]) - log_sum) for id_ in ordered)
    )


def shortlist(logits: FloatArray, sampling: SamplingParams) -> Ids:
    """Return the ids that pass top-k, top-p and min-p; never empty."""
    ids = _most_likely(logits, sampling.top_k) if sampling.top_k else None
    if sampling.top_p < 1:
        ids = _nucleus(logits, ids, sampling.top_p)
    if ids is None:
        ids = np.arange(len(logits))
    if sampling.min_p > 0:
        chosen = logits[ids]
        ids = ids[chosen >= chosen.max() + math.log(sampling.min_p)]
    return ids


def _most_likely(logits: FloatArray, k: int) -> Ids:
    """Return the `k` most likely tokens.

    Sorting all logits takes a millisecond. The best token of each column is found quickly, and at least k tokens are as
    likely as the k-th best of those, so that all less likely tokens can be skipped.
    """
    rows = len(logits) // COLUMNS
    threshold = -np.inf
    if rows and k < COLUMNS:
        threshold = np.partition(logits[: rows * COLUMNS].reshape(rows, COLUMNS).max(axis=0), -k)[-k]
    # A grammar forbids most tokens.
    near = np.flatnonzero(logits >= threshold if threshold > -np.inf else logits > -np.inf)
    return near if len(near) <= k else near[np.argpartition(logits[near], -k)[-k:]]


def _nucleus(logits: FloatArray, ids: Ids | None, top_p: float) -> Ids:
    """Return the fewest most likely tokens whose probabilities sum to `top_p` (Holtzman et al., arXiv:1904.09751)."""
    if ids is None:
        ids = np.arange(len(logits))
    chosen = logits[ids].astype(np.float64)
    mass = np.exp(chosen - chosen.max())
    target = top_p * mass.sum()
    near = np.flatnonzero(chosen >= chosen.max() - NUCLEUS_RANGE)
    if mass[near].sum() > target:
        ids, mass = ids[near], mass[near]
    order = np.argsort(-mass, kind="stable")
    return ids[order[: int(np.searchsorted(mass[order].cumsum(), target)) + 1]]
