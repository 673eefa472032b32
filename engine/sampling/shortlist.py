"""Find the tokens that top-k, top-p and min-p leave, without sorting the vocabulary."""

import math

import numpy as np
from numpy.typing import NDArray

from engine.job import SamplingParams
from engine.model import FloatArray
from engine.sampling.penalties import Ids

NUCLEUS_RANGE = 10.0
"""Distance to the best logit. In nearly every distribution the nucleus lies in this range, and sorting these tokens
costs a hundredth of sorting the vocabulary."""
COLUMNS = 1024
"""Columns of the table into which the vocabulary is folded."""


def shortens(sampling: SamplingParams) -> bool:
    """True if top-k, top-p or min-p may leave out tokens."""
    return sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0


def shortlist(logits: FloatArray, sampling: SamplingParams) -> Ids:
    """Return the ids that pass top-k, top-p (Holtzman et al., arXiv:1904.09751) and min-p (arXiv:2407.01082), the most
    likely first; never empty."""
    ids, distances = _ordered(logits, _candidates(logits, sampling))
    n = len(ids)
    if sampling.top_p < 1:
        mass = np.exp(distances).cumsum()
        target = sampling.top_p * (mass[-1] if sampling.top_k else total_mass(logits))
        if mass[-1] < target:  # a flat distribution, whose nucleus exceeds the range
            ids, distances = _ordered(logits, np.arange(len(logits)))
            mass = np.exp(distances).cumsum()
        n = int(mass.searchsorted(target)) + 1
    if sampling.min_p > 0:
        n = min(n, int((-distances).searchsorted(-math.log(sampling.min_p), side="right")))
    return ids[:n]


def most_likely(logits: FloatArray, k: int) -> Ids:
    """Return the `k` most likely tokens, in any order.

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


def best_first(logits: FloatArray, ids: Ids) -> Ids:
    """Return the ids, the most likely first."""
    return ids[np.argsort(-logits[ids], kind="stable")]


def total_mass(logits: FloatArray) -> float:
    """Return the sum of the probabilities of all tokens relative to that of the best one.

    float32 is exact enough for each term (as exact as the logits), but not for a sum of a hundred thousand.
    """
    return float(np.exp(logits - logits.max()).sum(dtype=np.float64))


def _candidates(logits: FloatArray, sampling: SamplingParams) -> Ids:
    """Return few tokens among which those of the shortlist very likely are, in any order."""
    if sampling.top_k:
        return most_likely(logits, sampling.top_k)
    most_distant = NUCLEUS_RANGE if sampling.top_p < 1 else -math.log(sampling.min_p) if sampling.min_p else math.inf
    return np.flatnonzero(logits >= logits.max() - np.float32(most_distant))


def _ordered(logits: FloatArray, ids: Ids) -> tuple[Ids, NDArray[np.float64]]:
    """Return the ids, the most likely first, and the distance of each logit to the best one."""
    ids = best_first(logits, ids)
    distances = logits[ids].astype(np.float64)
    distances -= distances[0]
    return ids, distances
