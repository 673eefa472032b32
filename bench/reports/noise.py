"""Noise of a run: how much the rounds differ, although they play the same."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from measures import MEASURES, percentile, samples
from record import Record

ROUND_POINTS = ("min", "median", "max")
"""Figures of the rounds' medians."""


def noise(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Return, for each measure of a group, the minimum, median and maximum of the rounds' medians, and
    `output_tokens_per_s` in the same way. With one round there is no noise to see."""
    rounds = _by_round(records)
    found: dict[str, list[float]] = {}
    for name in MEASURES:
        medians = (percentile(samples(name, each), 50) for each in rounds.values())
        found[f"{name}_ms"] = [value for value in medians if value is not None]
    found["output_tokens_per_s"] = [rate for each in rounds.values() if (rate := _tokens_per_second(each)) is not None]
    return {name: _spread(values) for name, values in found.items() if len(values) > 1}


def _by_round(records: Iterable[Record]) -> dict[int, list[Record]]:
    """Return the answered requests of each round."""
    rounds: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if not record.error:
            rounds[record.round].append(record)
    return rounds


def relative(spread: Mapping[str, Any] | None) -> float | None:
    """Return half the range of the rounds, divided by their median: the `±` of a figure."""
    if not spread or not spread["median"]:
        return None
    return float((spread["max"] - spread["min"]) / 2 / spread["median"])


def _tokens_per_second(records: Sequence[Record]) -> float | None:
    """Return the tokens of a round per second from its first start to its last end."""
    ends = [record.start + record.end for record in records if record.end is not None]
    wall = max(ends, default=0.0) - min(record.start for record in records)
    return sum(record.output_tokens for record in records) / wall if wall > 0 else None


def _spread(values: Sequence[float]) -> dict[str, Any]:
    figures = {"min": min(values), "median": percentile(values, 50), "max": max(values)}
    return {"rounds": len(values)} | {name: round(float(value or 0.0), 3) for name, value in figures.items()}
