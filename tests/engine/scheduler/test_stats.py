"""Counters of the inference thread."""

import pytest

from engine.scheduler.stats import Histogram, Times

BOUNDS = (0.01, 0.1)


@pytest.mark.parametrize(
    ("durations", "counts", "mean"),
    [
        ([], (0, 0, 0), 0.0),
        ([0.01], (1, 0, 0), 0.01),
        ([0.011, 0.1], (0, 2, 0), 0.0555),
        ([0.005, 0.05, 0.5], (1, 1, 1), 0.185),
    ],
)
def test_histogram_counts_durations_up_to_each_bound(
    durations: list[float], counts: tuple[int, ...], mean: float
) -> None:
    histogram = Histogram(BOUNDS)
    for seconds in durations:
        histogram.record(seconds)
    found = histogram.snapshot()
    assert found == Times(BOUNDS, counts, sum(durations))
    assert found.count == len(durations)
    assert found.mean == pytest.approx(mean)
