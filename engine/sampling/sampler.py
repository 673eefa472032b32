"""From logits to a token, and how likely the model thought it.

The order is llama.cpp's: what is penalised, then top-k, top-p, and min-p, all on the distribution at temperature 1;
the temperature only shapes the draw among what is left.
"""

import math
from collections.abc import Sequence

import numpy as np

from engine.job import SamplingParams, TokenLogprobs
from engine.model import FloatArray
from engine.sampling.penalties import Ids, Penalties

# exp(-NEAR) of the best token's probability. The nucleus lies among tokens this near in nearly every
# distribution, and sorting those costs a hundredth of sorting the vocabulary.
NUCLEUS_RANGE = 10.0
COLUMNS = 1024
"""Of the vocabulary as a table."""
MIN_TEMPERATURE = 1e-9
"""Colder is the same, but numpy would overflow."""


class Sampler:
    """Draws one sequence's tokens. The same seed, prompt and logits give the same tokens."""

    def __init__(self, sampling: SamplingParams, prompt: Sequence[int] = (), top_logprobs: int | None = None) -> None:
        """`prompt` stands before the first token; `top_logprobs`: see Job."""
        self._sampling = sampling
        self._top_logprobs = top_logprobs
        self._penalties = Penalties(sampling, prompt) if Penalties.needed(sampling) else None
        # numpy takes no negative seeds, clients may send them: as the 64 bits they are.
        self._random = np.random.default_rng(None if sampling.seed is None else sampling.seed & (2**64 - 1))

    def raw_logits(self, logits: FloatArray) -> FloatArray | None:
        """Return a copy of the model's logits for `logprobs`, or None if the job asks for no logprobs.

        Call it before anything changes the logits.
        """
        return None if self._top_logprobs is None else logits.copy()

    def logprobs(self, untouched: FloatArray | None, token: int) -> TokenLogprobs | None:
        """Of the token that was picked."""
        if untouched is None or self._top_logprobs is None:
            return None
        return token_logprobs(untouched, token, self._top_logprobs)

    def pick(self, logits: FloatArray) -> int:
        """The sequence's next token; from now on it is part of it. Penalties change the logits in place."""
        if self._penalties is None:
            return self._draw(logits)
        self._penalties.apply(logits)
        token = self._draw(logits)
        self._penalties.add(token)
        return token

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
    """The token's own, and the `n_top` best ones'."""
    best = float(logits.max())
    # float32 is exact enough for the parts (the logits are no better), but not for a sum of a hundred thousand.
    whole = best + math.log(np.exp(logits - np.float32(best)).sum(dtype=np.float64))
    top = _most_likely(logits, n_top) if n_top else np.arange(0)
    ordered = top[np.argsort(-logits[top], kind="stable")]
    return TokenLogprobs(float(logits[token]) - whole, tuple((int(id_), float(logits[id_]) - whole) for id_ in ordered))


def shortlist(logits: FloatArray, sampling: SamplingParams) -> Ids:
    """The ids that top-k, top-p and min-p leave; never empty."""
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
    """Sorting all takes a millisecond. The best token of each column is quickly found, and at least k tokens are as
    likely as the k-th best of those: the others needn't be sorted."""
    rows = len(logits) // COLUMNS
    least = -np.inf
    if rows and k < COLUMNS:
        least = np.partition(logits[: rows * COLUMNS].reshape(rows, COLUMNS).max(axis=0), -k)[-k]
    # Under a grammar few can be.
    near = np.flatnonzero(logits >= least if least > -np.inf else logits > -np.inf)
    return near if len(near) <= k else near[np.argpartition(logits[near], -k)[-k:]]


def _nucleus(logits: FloatArray, ids: Ids | None, top_p: float) -> Ids:
    """The fewest most likely tokens whose probabilities add up to `top_p` (Holtzman et al., arXiv:1904.09751)."""
    if ids is None:
        ids = np.arange(len(logits))
    chosen = logits[ids].astype(np.float64)
    mass = np.exp(chosen - chosen.max())
    wanted = top_p * mass.sum()
    near = np.flatnonzero(chosen >= chosen.max() - NUCLEUS_RANGE)
    if mass[near].sum() > wanted:
        ids, mass = ids[near], mass[near]
    order = np.argsort(-mass, kind="stable")
    return ids[order[: int(np.searchsorted(mass[order].cumsum(), wanted)) + 1]]
