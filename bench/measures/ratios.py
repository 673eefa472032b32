"""Ratios of two groups with bootstrap confidence intervals.

Whole requests are drawn with replacement, within each round: the gaps of one request depend on each other, and a round
has its own noise. The interval is the middle 95 % of the ratios of `DRAWS` such samples (the percentile method of
https://doi.org/10.1214/aos/1176344552). Below 1 is faster, except for tokens/s and the cached share.

A maximum grows with the sample, so it has no ratio. A percentile has an interval only if both samples are large enough
to bound it (`BOUNDED`), and no figure has one that fewer than `MIN_REQUESTS` requests of either server give.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from record import Record

from measures.figures import Group
from measures.formulas import MEASURES
from measures.percentiles import BOUNDED, POINTS, percentile, points

DRAWS = 1000
"""Samples for an interval."""
MAX_VALUES = 4_000_000
"""Values that all draws of one measure may sort, so that a long run does not end with minutes of arithmetic."""
MIN_DRAWS = 100
"""Samples for an interval, however many values each has."""
MIN_REQUESTS = BOUNDED["p50"]
"""Requests of each server without which no ratio has an interval."""
RATIO_POINTS = tuple(point for point in POINTS if point != "max")

_Sums = Callable[[list[Record], Group], tuple[float, float]]


def _seconds(records: list[Record]) -> float:
    return sum(record.end or 0.0 for record in records)


def _wall(drawn: list[Record], group: Group) -> float:
    """Return the group's wall time in proportion to the drawn requests' durations."""
    whole = _seconds([record for record in group.records if not record.error])
    return group.wall * _seconds(drawn) / whole if whole else 0.0


RATES: dict[str, _Sums] = {
    "requests_per_s": lambda drawn, group: (len(drawn), _wall(drawn, group)),
    "output_tokens_per_s": lambda drawn, group: (sum(r.output_tokens for r in drawn), _wall(drawn, group)),
    "prefill_tokens_per_s": lambda drawn, group: (
        sum(r.input_tokens - r.cached_tokens for r in drawn),
        sum(r.deltas[0] for r in drawn if r.deltas),
    ),
    "cached_share": lambda drawn, group: (sum(r.cached_tokens for r in drawn), sum(r.input_tokens for r in drawn)),
}
"""Name -> numerator and denominator of a rate."""


def ratios(ours: Group, theirs: Group, seed: int = 0, draws: int = DRAWS) -> dict[str, Any]:
    """Return one group's figures divided by another's: each `{"ratio", "low", "high"}`.

    A percentile that one of the samples cannot carry has no ratio. `low` and `high` are None without an interval.
    `draws`: samples for an interval; `MIN_DRAWS` at least.
    """
    rng = random.Random(seed)
    pair = (ours, theirs)
    result: dict[str, Any] = {}
    for name in ours.measures:
        if name in theirs.measures and name != "delay" and (found := _Measure(name, pair).compare(rng, draws)):
            result[f"{name}_ms"] = {point: found[point] for point in RATIO_POINTS if point in found}
    if "e2e" in ours.measures and "e2e" in theirs.measures:
        for name in RATES:
            result |= _Rate(name, pair).compare(rng, draws)
    return result


class _Comparison:
    """A statistic of two groups; `values` is the number of values that one computation of it sorts."""

    def __init__(self, pair: tuple[Group, Group]) -> None:
        self._good = [[record for record in group.records if not record.error] for group in pair]
        self.values = 1

    def statistics(self, index: int, drawn: list[Record]) -> dict[str, float]:
        """Return the statistics of records of that group, without those that the sample cannot carry."""
        raise NotImplementedError

    def compare(self, rng: random.Random, draws: int) -> dict[str, dict[str, float | None]]:
        """Return the ratio of each statistic with its interval."""
        wanted = self._quotients(self._good[0], self._good[1])
        if not wanted:
            return {}
        strata = [_strata(records) for records in self._good]
        drawn: dict[str, list[float]] = defaultdict(list)
        if all(len(records) >= MIN_REQUESTS for records in self._good):
            for _ in range(max(MIN_DRAWS, min(draws, MAX_VALUES // self.values))):
                for name, value in self._quotients(_draw(strata[0], rng), _draw(strata[1], rng)).items():
                    drawn[name].append(value)
        return {name: _interval(ratio, drawn[name] if self.bounds(name) else []) for name, ratio in wanted.items()}

    def bounds(self, name: str) -> bool:
        """True if both samples are large enough for an interval of the statistic."""
        return True

    def _quotients(self, ours: list[Record], theirs: list[Record]) -> dict[str, float]:
        below = self.statistics(1, theirs)
        return {name: value / below[name] for name, value in self.statistics(0, ours).items() if below.get(name)}


class _Measure(_Comparison):
    """The points of a measure."""

    def __init__(self, name: str, pair: tuple[Group, Group]) -> None:
        super().__init__(pair)
        formula = MEASURES[name][1]
        self._values = {id(record): [*formula(record)] for records in self._good for record in records}
        self.values = max(1, sum(len(found) for found in self._values.values()))
        self._sizes = [sum(len(self._values[id(record)]) for record in records) for records in self._good]

    def bounds(self, name: str) -> bool:
        return min(self._sizes) >= BOUNDED.get(name, MIN_REQUESTS)

    def statistics(self, index: int, drawn: list[Record]) -> dict[str, float]:
        found = points([value for record in drawn for value in self._values[id(record)]])
        return {name: value for name, value in found.items() if value is not None}


class _Rate(_Comparison):
    """A rate of `RATES`."""

    def __init__(self, name: str, pair: tuple[Group, Group]) -> None:
        super().__init__(pair)
        self._name = name
        self._pair = pair

    def statistics(self, index: int, drawn: list[Record]) -> dict[str, float]:
        count, per = RATES[self._name](drawn, self._pair[index])
        return {self._name: count / per} if per else {}


def _interval(ratio: float, drawn: list[float]) -> dict[str, float | None]:
    low, high = percentile(drawn, 2.5), percentile(drawn, 97.5)
    return {name: None if v is None else round(v, 4) for name, v in (("ratio", ratio), ("low", low), ("high", high))}


def _strata(records: list[Record]) -> list[list[Record]]:
    """Return the records by round; all in one if a round has only one, which would always be drawn."""
    found: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        found[record.round].append(record)
    return [*found.values()] if all(len(each) > 1 for each in found.values()) else [records]


def _draw(strata: list[list[Record]], rng: random.Random) -> list[Record]:
    return [record for records in strata for record in rng.choices(records, k=len(records))]
