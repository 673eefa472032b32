"""Latencies of the last minutes."""

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.monitoring.latencies import (
    BUCKET_SECONDS,
    WINDOW_SECONDS,
    Distribution,
    LatencyBucket,
    Percentiles,
    RecentLatencies,
)

NONE = Percentiles(0, None, None, None, None)


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([], (0, None, None, None, None)),
        ([0.02], (1, 0.02, None, None, 0.02)),
        ([0.01] * 19 + [1.0], (20, 0.01, 0.01, None, 1.0)),
        ([0.01] * 18 + [1.0] * 2, (20, 0.01, 1.0, None, 1.0)),
        ([0.01] * 98 + [3.0] * 2, (100, 0.01, 0.01, 3.0, 3.0)),
        ([0.0, 5000.0], (2, 0.0, None, None, 5000.0)),
    ],
    ids=["none", "one", "p95 below the last", "p95", "p99", "out of range"],
)
def test_percentiles_are_those_that_the_sample_allows(
    durations: list[float], expected: tuple[float | None, ...]
) -> None:
    distribution = Distribution()
    distribution.add(durations)
    found = distribution.percentiles()
    got = (found.n, found.p50, found.p95, found.p99, found.max)
    assert [None if value is None else pytest.approx(value, rel=0.031, abs=1e-5) for value in expected] == list(got)


@pytest.mark.parametrize("duration", [1e-6, 0.0103, 0.345, 0.351, 5000.0])
def test_percentiles_of_one_value_are_that_value(duration: float) -> None:
    distribution, merged = Distribution(), Distribution()
    distribution.add([duration])
    merged.merge(distribution)
    assert distribution.percentiles() == merged.percentiles() == Percentiles(1, duration, None, None, duration)


def test_snapshot_sorts_latencies_into_buckets_by_their_time() -> None:
    latencies = RecentLatencies()
    latencies.record("a", 1003.0, 0.5, [1.0, 1.0, 1.0], ended=True)  # arrivals at 1004, 1005, 1006
    found = latencies.snapshot(1007.0)
    one, two = sample(0.5), sample(1.0)
    assert found.buckets == (LatencyBucket(2.0, one, two), LatencyBucket(-3.0, NONE, sample(1.0, 1.0)))
    assert (found.ttft, found.itl) == (one, sample(1.0, 1.0, 1.0))


def test_snapshot_forgets_what_is_older_than_the_window() -> None:
    latencies = RecentLatencies()
    latencies.record("a", 100.0, 0.5, [1.0], ended=True)
    assert len(latencies.snapshot(100.0 + WINDOW_SECONDS).buckets) == 1
    assert latencies.snapshot(106.0 + WINDOW_SECONDS).buckets == ()


@given(
    gaps=st.lists(st.floats(1e-5, 20, allow_nan=False), max_size=60),
    looks=st.lists(st.integers(0, 60), max_size=6),
)
def test_record_of_a_growing_list_counts_every_gap_once(gaps: list[float], looks: list[int]) -> None:
    whole, looked = RecentLatencies(), RecentLatencies()
    whole.record("a", 1000.0, 0.5, gaps, ended=True)
    for look in sorted(looks):
        looked.record("a", 1000.0, 0.5, gaps[:look], ended=False)
    looked.record("a", 1000.0, 0.5, gaps, ended=True)
    end = [1000.0, *accumulate(gaps, initial=1000.0)][-1]
    assert looked.snapshot(end) == whole.snapshot(end)
    assert looked._recorded == {}
    kept = [at for at in list(accumulate(gaps, initial=1000.0))[1:] if at >= first_kept(end)]
    assert looked.snapshot(end).itl.n == len(kept)


def first_kept(now: float) -> float:
    """Return the beginning of the first bucket that the window touches."""
    return math.floor((now - WINDOW_SECONDS) / BUCKET_SECONDS) * BUCKET_SECONDS


def sample(*durations: float) -> Percentiles:
    distribution = Distribution()
    distribution.add(durations)
    return distribution.percentiles()
