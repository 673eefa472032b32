"""The formulas of guidellm 0.8.1 and of `vllm bench serve` 0.33.0 over our records, beside ours.

They are copied from `guidellm/schemas/base/request_stats.py` and from `calculate_metrics` in `vllm/benchmarks/serve.py`
with `vllm/benchmarks/lib/endpoint_request_func.py`; only the names of the fields are ours. vLLM's latency ends with the
last chunk that has a choice, guidellm's with the last token; ours ends with the terminal event, which follows at once.
"""

import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from measures import Group, Objectives, samples, summarize
from record import Record

TOLERANCE = 0.03


def made(seed: int, requests: int) -> list[Record]:
    """Return records like those of a small server: bursts of two tokens, and a terminal event soon after the last."""
    rng = random.Random(seed)
    records = []
    start = 0.0
    for _ in range(requests):
        time = rng.uniform(0.05, 0.4)
        record = Record(start=start, first_byte=0.002, input_tokens=rng.randint(20, 200), status="incomplete")
        for _ in range(rng.randint(20, 120)):
            record.deltas += [time] * rng.choice((1, 1, 1, 2))
            time += rng.lognormvariate(-4.5, 0.3)
        record.output_tokens = len(record.deltas)
        record.end = record.deltas[-1] + 0.0005
        start += record.end
        records.append(record)
    return [*records, Record(start=start, error="HTTP 503: busy", error_kind="http 503")]


RECORDS = made(4, 150)
GOOD = [record for record in RECORDS if not record.error]
WALL = max(record.start + (record.end or 0.0) for record in GOOD)


def vllm_tpot(record: Record) -> float:
    latency, ttft = record.deltas[-1], record.deltas[0]
    return (latency - ttft) / (record.output_tokens - 1)


def vllm_itl(record: Record) -> list[float]:
    most_recent_timestamp, gaps = record.deltas[0], []
    for timestamp in record.deltas[1:]:
        gaps.append(timestamp - most_recent_timestamp)
        most_recent_timestamp = timestamp
    return gaps


def guidellm_inter_token_latency(record: Record) -> float:
    first_token, last_token = record.deltas[0], record.deltas[-1]
    return (last_token - first_token) / (record.output_tokens - 1)


def guidellm_time_per_output_token(record: Record) -> float:
    start, last_token = 0.0, record.deltas[-1]
    return (last_token - start) / record.output_tokens


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ttft", lambda r: [r.deltas[0]]),
        ("tpot", lambda r: [vllm_tpot(r)]),
        ("itl", vllm_itl),
        ("e2e", lambda r: [r.deltas[-1]]),
    ],
)
@pytest.mark.parametrize("point", ["mean", "p50", "p90", "p99"])
def test_measures_agree_with_vllm(ours: str, theirs: Callable[[Record], list[float]], point: str) -> None:
    values = [value for record in GOOD for value in theirs(record)]
    expected = np.mean(values) if point == "mean" else np.percentile(values, float(point[1:]))
    found = summarize(Group(RECORDS, WALL))[f"{ours}_ms"]
    assert found["n"] == len(values)
    assert found[point] == pytest.approx(1000 * expected, rel=TOLERANCE, abs=0.01)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ttft", lambda r: r.deltas[0]),
        ("tpot", guidellm_inter_token_latency),
        ("normalised", guidellm_time_per_output_token),
        ("e2e", lambda r: r.deltas[-1]),
    ],
)
@pytest.mark.parametrize("point", ["mean", "p50", "p90", "p99"])
def test_measures_agree_with_guidellm(ours: str, theirs: Callable[[Record], float], point: str) -> None:
    values = [theirs(record) for record in GOOD]
    expected = np.mean(values) if point == "mean" else np.percentile(values, float(point[1:]))
    assert summarize(Group(RECORDS, WALL))[f"{ours}_ms"][point] == pytest.approx(1000 * expected, rel=TOLERANCE)


def test_rates_agree_with_vllm_and_guidellm() -> None:
    figures = summarize(Group(RECORDS, WALL))
    assert figures["requests_per_s"] == pytest.approx(len(GOOD) / WALL, rel=TOLERANCE)
    assert figures["output_tokens_per_s"] == pytest.approx(sum(r.output_tokens for r in GOOD) / WALL, rel=TOLERANCE)


def test_goodput_agrees_with_vllm() -> None:
    """vLLM counts requests whose TTFT, TPOT and E2EL all meet their objectives, per second; a failed one is none."""
    limits = {"ttft": 0.25, "tpot": 0.0125, "e2e": 1.2}
    good = [
        record.deltas[0] <= limits["ttft"]
        and vllm_tpot(record) <= limits["tpot"]
        and record.deltas[-1] <= limits["e2e"]
        for record in GOOD
    ]
    figures = summarize(Group(RECORDS, WALL), Objectives(limits))
    assert 0 < sum(good) < len(good)
    assert figures["goodput_requests_per_s"] == pytest.approx(sum(good) / WALL, rel=TOLERANCE)


def test_itl_has_a_gap_of_each_delta_as_in_vllm() -> None:
    assert samples("itl", GOOD) == [
        1000 * (later - earlier) for record in GOOD for earlier, later in pairwise(record.deltas)
    ]
