"""The bench's arithmetic, by tables with the right values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measures import Group, Objectives, percentile, ratios, samples, spread, summarize
from measures.ratios import MIN_DRAWS
from record import Record
from reports.terminal_tables import ratio_table, table


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 99, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0], 50, 1.5),
        ([0.0, 10.0, 20.0, 30.0, 40.0], 90, 36.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_percentile_interpolates(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_of_a_sample_ascend_to_its_maximum(values: list[float]) -> None:
    points = [percentile(values, percent) or 0.0 for percent in (0, 50, 90, 95, 99, 100)]
    assert points == sorted(points)
    assert (points[0], points[-1]) == (min(values), max(values))


@pytest.mark.parametrize(
    ("count", "carried"),
    [
        (0, []),
        (1, ["mean", "p50", "max"]),
        (9, ["mean", "p50", "max"]),
        (10, ["mean", "p50", "p90", "max"]),
        (19, ["mean", "p50", "p90", "max"]),
        (20, ["mean", "p50", "p90", "p95", "max"]),
        (99, ["mean", "p50", "p90", "p95", "max"]),
        (100, ["mean", "p50", "p90", "p95", "p99", "max"]),
    ],
)
def test_spread_has_no_percentile_that_the_sample_cannot_carry(count: int, carried: list[str]) -> None:
    found = spread([1.0] * count)
    assert found.pop("n") == count
    assert [name for name, value in found.items() if value is not None] == carried


ANSWER = Record(
    first_byte=0.1, deltas=[0.2, 0.3, 0.5], end=0.6, output_tokens=5, input_tokens=80, cached_tokens=60, asked_tokens=5
)


@pytest.mark.parametrize(
    ("name", "closed", "opened"),
    [
        ("delay", [], [50.0]),
        ("first_byte", [100.0], [150.0]),
        ("ttft", [200.0], [250.0]),
        ("itl", [100.0, 200.0], [100.0, 200.0]),
        ("tpot", [100.0], [100.0]),
        ("e2e", [600.0], [650.0]),
        ("normalised", [120.0], [130.0]),
    ],
)
def test_measure_counts_from_the_planned_start(name: str, closed: list[float], opened: list[float]) -> None:
    late = Record(
        start=3.0, planned=2.95, first_byte=0.1, deltas=[0.2, 0.3, 0.5], end=0.6, output_tokens=5
    )  # fmt: skip
    assert samples(name, [ANSWER]) == pytest.approx(closed)
    assert samples(name, [late]) == pytest.approx(opened)


def one(value: float) -> dict[str, float | None]:
    return {"n": 1, "mean": value, "p50": value, "p90": None, "p95": None, "p99": None, "max": value}


def test_summary_of_records_is_exact() -> None:
    records = [ANSWER, Record(first_byte=0.3, error="HTTP 503: busy", error_kind="http 503")]
    figures = summarize(Group(records, wall=2.0), Objectives.parse("ttft=200ms,e2e=1s"))
    assert figures == {
        "ok": 1,
        "errors": 1,
        "errors_by_kind": {"http 503": 1},
        "first_error": "HTTP 503: busy",
        "ended_early": 0,
        "wall_s": 2.0,
        "requests_per_s": 0.5,
        "input_tokens": 80,
        "input_tokens_per_request": one(80),
        "cached_share": 0.75,
        "prefill_tokens_per_s": 100.0,
        "output_tokens": 5,
        "output_tokens_per_request": one(5),
        "output_tokens_are_deltas": False,
        "output_tokens_per_s": 2.5,
        "output_tokens_per_s_per_stream": 8.333,
        "objectives_ms": {"ttft": 200.0, "e2e": 1000.0},
        "goodput_share": 0.5,
        "goodput_requests_per_s": 0.5,
        "first_byte_ms": one(100.0),
        "ttft_ms": one(200.0),
        "itl_ms": {"n": 2, "mean": 150.0, "p50": 150.0, "p90": None, "p95": None, "p99": None, "max": 200.0},
        "tpot_ms": one(100.0),
        "e2e_ms": one(600.0),
        "normalised_ms": one(120.0),
    }
    assert "(e2e - ttft) / (n - 1), n = usage.output_tokens" in table(figures)
    assert table(figures).endswith("first error: HTTP 503: busy")


def test_table_without_successful_answers_is_exact() -> None:
    figures = summarize(Group([Record(error="no", error_kind="closed")]))
    assert (figures["ttft_ms"]["p50"], figures["output_tokens_per_s"]) == (None, None)
    assert "-" in table(figures)


def test_summarize_adds_up_rounds() -> None:
    part = Group()
    for end in (1.0, 2.0):
        part += Group([Record(deltas=[0.5], end=end, output_tokens=4)], wall=end, measures=("e2e",))
    figures = summarize(part)
    assert (figures["ok"], figures["wall_s"], figures["output_tokens_per_s"]) == (2, 3.0, 2.667)
    assert [name for name in figures if name.endswith("_ms")] == ["e2e_ms"]
    assert figures["e2e_ms"]["p50"] == 1500.0


@pytest.mark.parametrize(
    ("status", "tokens", "asked", "early"),
    [("completed", 3, 5, 1), ("completed", 5, 5, 0), ("incomplete", 3, 5, 0), ("completed", 3, None, 0)],
)
def test_ended_early_counts_answers_below_their_length(status: str, tokens: int, asked: int | None, early: int) -> None:
    record = Record(status=status, output_tokens=tokens, asked_tokens=asked)
    assert summarize(Group([record]))["ended_early"] == early


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("ttft=200ms", True),
        ("ttft=0.2s", True),
        ("ttft=199", False),
        ("itl=190ms", True),
        ("itl=189ms", False),
        ("ttft=1s,e2e=500ms", False),
        ("tpot=100.1ms,normalised=121ms,first_byte=100000us", True),
    ],
)
def test_objectives_are_met_if_all_are(text: str, met: bool) -> None:
    assert Objectives.parse(text).met(ANSWER) is met


@pytest.mark.parametrize("text", ["", "ttft", "ttft=fast", "latency=1s", "ttft=1h", "ttft=1s;itl=2s"])
def test_objectives_that_cannot_be_read_name_the_measures(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as ttft=200ms; measures: first_byte, ttft, itl"):
        Objectives.parse(text)


def test_objectives_are_never_met_by_a_failed_request() -> None:
    assert not Objectives.parse("ttft=9s").met(Record(error="no"))


def answers(rounds: int, *ends: float) -> Group:
    made = [
        Record(round=number, first_byte=end / 2, deltas=[end / 2, end], end=end, output_tokens=2, input_tokens=10)
        for number in range(rounds)
        for end in ends
    ]
    return Group(made, wall=sum(record.end or 0 for record in made), measures=("ttft", "e2e"))


@pytest.mark.slow
def test_ratios_divide_ours_by_theirs() -> None:
    found = ratios(answers(2, *[1.0] * 3), answers(2, *[4.0] * 3))
    quarter, fourfold = ({"ratio": value, "low": value, "high": value} for value in (0.25, 4.0))
    points = {"mean": quarter, "p50": quarter}
    assert found == {
        "ttft_ms": points,
        "e2e_ms": points,
        "requests_per_s": fourfold,
        "output_tokens_per_s": fourfold,
        "prefill_tokens_per_s": fourfold,
    }
    assert ratio_table({"all": found}).splitlines()[1:3] == [
        "all ttft                             mean     0.250     0.250    0.250",
        "all ttft                             p50      0.250     0.250    0.250",
    ]


@pytest.mark.slow
def test_a_maximum_has_no_ratio() -> None:
    found = ratios(answers(1, *[1.0] * 500), answers(1, *[2.0] * 500), draws=MIN_DRAWS)["e2e_ms"]
    assert [*found] == ["mean", "p50", "p90", "p95", "p99"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requests", "bounded", "without_interval"),
    [
        (5, [], ["mean", "p50"]),
        (6, ["mean", "p50"], []),
        (28, ["mean", "p50"], ["p90", "p95"]),
        (29, ["mean", "p50", "p90"], ["p95"]),
        (298, ["mean", "p50", "p90", "p95"], ["p99"]),
        (299, ["mean", "p50", "p90", "p95", "p99"], []),
    ],
)
def test_a_ratio_has_an_interval_if_both_samples_can_bound_it(
    requests: int, bounded: list[str], without_interval: list[str]
) -> None:
    found = ratios(answers(1, *[1.0] * requests), answers(1, *[2.0] * 400), draws=MIN_DRAWS)["e2e_ms"]
    expected = {point: {"ratio": 0.5, "low": 0.5, "high": 0.5} for point in bounded}
    assert found == expected | {point: {"ratio": 0.5, "low": None, "high": None} for point in without_interval}


def test_many_gaps_of_few_requests_give_no_interval() -> None:
    def group(gap: float) -> Group:
        deltas = [gap * number for number in range(400)]
        return Group([Record(deltas=deltas, end=deltas[-1], output_tokens=400)] * 5, 9.0, ("itl",))

    found = ratios(group(0.01), group(0.02), draws=MIN_DRAWS)["itl_ms"]
    assert found == {point: {"ratio": 0.5, "low": None, "high": None} for point in ("mean", "p50", "p90", "p95", "p99")}


@pytest.mark.slow
def test_ratios_of_one_request_a_round_draw_among_the_rounds() -> None:
    ours = Group([record for end in (1.0, 2.0, 3.0) * 2 for record in answers(1, end).records], 12.0, ("e2e",))
    for number, record in enumerate(ours.records):
        record.round = number
    found = ratios(ours, answers(2, *[2.0] * 3))["e2e_ms"]["mean"]
    assert found["low"] < found["ratio"] == 1.0 < found["high"]


@pytest.mark.slow
@given(st.lists(st.floats(0.5, 2.0), min_size=6, max_size=10), st.integers(0, 9))
def test_interval_of_a_ratio_includes_it(ends: list[float], seed: int) -> None:
    found = ratios(answers(1, *ends), answers(1, *reversed(ends)), seed, MIN_DRAWS)["e2e_ms"]["p50"]
    assert found["low"] <= found["ratio"] <= found["high"]


def test_ratios_leave_out_failed_requests() -> None:
    ours = answers(1, 1.0, 1.0)
    ours.records.append(Record(error="no"))
    assert ratios(ours, answers(1, 2.0, 2.0))["e2e_ms"]["mean"]["ratio"] == 0.5
