"""Latencies of the last minutes. Pure.

Running generations are recorded only when the status is requested, ended ones at their end: no work is done per token.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate

from msgspec import Struct

BUCKET_SECONDS = 5
WINDOW_SECONDS = 300

BINS_PER_DECADE = 40
"""Bins between 1 ms and 10 ms, and so on: a value is known within 3 %."""
BOUNDS = tuple(1e-5 * 10 ** (step / BINS_PER_DECADE) for step in range(8 * BINS_PER_DECADE + 1))
"""Upper bounds of the bins in seconds, from 10 us to 1,000 s."""
QUANTILES = {0.5: 1, 0.95: 20, 0.99: 100}
"""Quantile -> number of values that it needs."""


class Percentiles(Struct, frozen=True):
    """A sample of durations in seconds. A percentile that the sample is too small for is null."""

    n: int
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class LatencyBucket(Struct, frozen=True):
    """The latencies of a few seconds."""

    age: float
    """Seconds since the end of the bucket; negative if it has not ended."""
    ttft: Percentiles
    itl: Percentiles


class LatencyStatus(Struct, frozen=True):
    """Latencies of the last minutes: time to first token, and between two arrivals of tokens."""

    seconds: float
    """Length of the window."""
    bucket_seconds: float
    ttft: Percentiles
    itl: Percentiles
    buckets: tuple[LatencyBucket, ...]
    """Buckets with a value, the oldest first."""


class Distribution:
    """Durations, counted in bins whose width grows with them."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._shortest, self._longest = math.inf, 0.0
        self._percentiles = Percentiles(0, None, None, None, None)

    def add(self, durations: Sequence[float]) -> None:
        self._bins.update(map(partial(bisect_left, BOUNDS), durations))
        self._shortest = min(self._shortest, min(durations, default=math.inf))
        self._longest = max(self._longest, max(durations, default=0.0))

    def merge(self, other: "Distribution") -> None:
        self._bins.update(other._bins)
        self._shortest = min(self._shortest, other._shortest)
        self._longest = max(self._longest, other._longest)

    def percentiles(self) -> Percentiles:
        n = self._bins.total()
        if n > self._percentiles.n:
            p50, p95, p99 = (self._quantile(share, n) if n >= needed else None for share, needed in QUANTILES.items())
            self._percentiles = Percentiles(n, p50, p95, p99, round(self._longest, 6))
        return self._percentiles

    def _quantile(self, share: float, n: int) -> float:
        """Return the middle of the bin with the value of that rank, within the shortest and the longest value."""
        bins = sorted(self._bins)
        ranks = list(accumulate(self._bins[each] for each in bins))
        found = bins[bisect_left(ranks, share * n)]
        middle = BOUNDS[min(found, len(BOUNDS) - 1)] * 10 ** (-0.5 / BINS_PER_DECADE)
        return round(min(max(middle, self._shortest), self._longest), 6)


class RecentLatencies:
    """Latencies of running and ended generations. Times are in seconds of one clock."""

    def __init__(self) -> None:
        self._first_tokens: dict[int, Distribution] = {}
        self._gaps: dict[int, Distribution] = {}
        """By the number of the bucket."""
        self._recorded: dict[str, tuple[int, float]] = {}
        """Id of a running generation -> number of its recorded gaps, and the time of the last one."""

    def record(
        self, response_id: str, first_token_at: float, first_token: float, gaps: Sequence[float], *, ended: bool
    ) -> None:
        """Record the latencies of a generation that are new since the last time.

        `first_token`: its time to the first token. `gaps`: seconds between its arrivals of tokens, a list that grows.
        """
        if response_id not in self._recorded:
            _add(self._first_tokens, first_token_at, [first_token])
        count, at = self._recorded.pop(response_id, (0, first_token_at))
        new = gaps[count:]
        times = list(accumulate(new, initial=at))
        start = 0
        while start < len(new):
            bucket = int(times[start + 1] // BUCKET_SECONDS)
            end = bisect_left(times, (bucket + 1) * BUCKET_SECONDS, start + 1) - 1
            _add(self._gaps, times[start + 1], new[start:end])
            start = end
        if not ended:
            self._recorded[response_id] = (count + len(new), times[-1])

    def snapshot(self, now: float) -> LatencyStatus:
        """Return the latencies of the window before `now`, and forget earlier ones."""
        self.forget(now)
        empty = Distribution()
        return LatencyStatus(
            WINDOW_SECONDS,
            BUCKET_SECONDS,
            _merged(self._first_tokens.values()),
            _merged(self._gaps.values()),
            tuple(
                LatencyBucket(
                    round(now - (number + 1) * BUCKET_SECONDS, 3),
                    self._first_tokens.get(number, empty).percentiles(),
                    self._gaps.get(number, empty).percentiles(),
                )
                for number in sorted(self._first_tokens.keys() | self._gaps.keys())
            ),
        )

    def forget(self, now: float) -> None:
        """Forget the latencies before the window."""
        first = int((now - WINDOW_SECONDS) // BUCKET_SECONDS)
        for buckets in (self._first_tokens, self._gaps):
            for number in [number for number in buckets if number < first]:
                del buckets[number]


def _add(buckets: dict[int, Distribution], at: float, durations: Sequence[float]) -> None:
    number = int(at // BUCKET_SECONDS)
    if number not in buckets:
        buckets[number] = Distribution()
    buckets[number].add(durations)


def _merged(distributions: Iterable[Distribution]) -> Percentiles:
    merged = Distribution()
    for each in distributions:
        merged.merge(each)
    return merged.percentiles()
