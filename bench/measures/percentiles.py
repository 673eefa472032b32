"""Percentiles of a sample, and none that the sample cannot carry."""

from collections.abc import Sequence
from math import ceil, floor

PERCENTS = {"p50": 1, "p90": 10, "p95": 20, "p99": 100}
"""Percentile -> the smallest sample with a value beyond it: p99 of fewer than 100 values is only their maximum."""
POINTS = ("mean", *PERCENTS, "max")
"""Figures of a sample."""
BOUNDED = {"p50": 6, "p90": 29, "p95": 59, "p99": 299}
"""Percentile -> the smallest sample whose range contains it in 95 of 100 samples: 1 - p^n - (1 - p)^n >= 0.95.
https://doi.org/10.1214/aoms/1177731788
"""


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Interpolate linearly between the two nearest ranks, as numpy does by default. Return None without values."""
    return _at(sorted(values), percent) if values else None


def _at(ranked: Sequence[float], percent: float) -> float:
    rank = (len(ranked) - 1) * percent / 100
    low, high = ranked[floor(rank)], ranked[ceil(rank)]
    return low + (high - low) * (rank - floor(rank))


def points(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean, percentiles and maximum; None for each that the sample cannot carry."""
    ranked = sorted(values)
    if not ranked:
        return dict.fromkeys(POINTS)
    found: dict[str, float | None] = {"mean": sum(ranked) / len(ranked)}
    for name, smallest in PERCENTS.items():
        found[name] = _at(ranked, float(name[1:])) if len(ranked) >= smallest else None
    return found | {"max": ranked[-1]}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return the count and the points, rounded for JSON."""
    found = {name: None if value is None else round(value, 3) for name, value in points(values).items()}
    return {"n": len(values)} | found
