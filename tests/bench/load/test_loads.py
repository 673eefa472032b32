"""Loads against a server of known latencies, and their plans by tables and laws."""

import json
import random
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load import Length, arrivals
from load.sweep import Sweep
from load.trace import Arrival, read_trace
from measures import Group, Objectives
from record import Record
from run import main

from tests.bench.fake_server import DELTA, DONE, HEAD, LAST, SHORT, bench, chunk, data, fake_server

ANSWER = [HEAD + chunk(data(DELTA, DONE)) + LAST]
STALL = (0.2, 1.2)
"""Seconds since the first request in which the server answers nothing."""


def group_of(run: Any, name: str = "all") -> dict[str, Any]:
    assert (run.returncode, run.stderr) == (0, "")
    group: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"][name]
    return group


@pytest.mark.slow
def test_open_loop_shows_a_stall_of_one_second() -> None:
    with fake_server(ANSWER, stall=STALL) as (url, _):
        run = bench("--url", url, "--rate", "100", "--arrivals", "constant", "--requests", "200", "--warmup", "0")
    e2e = group_of(run)["e2e_ms"]
    assert e2e["n"] == 200
    assert e2e["p99"] > 900
    assert e2e["p90"] > 300


@pytest.mark.slow
def test_closed_loop_hides_a_stall_of_one_second() -> None:
    with fake_server(ANSWER, stall=STALL) as (url, _):
        run = bench("--url", url, "--requests", "2000", "--warmup", "0")
    e2e = group_of(run)["e2e_ms"]
    assert e2e["n"] == 2000
    assert e2e["p99"] < 300
    assert e2e["max"] > 900


@pytest.mark.slow
def test_open_loop_with_a_limit_counts_the_wait() -> None:
    with fake_server([HEAD, chunk(data(DELTA, DONE)) + LAST], gap=0.05) as (url, server):
        run = bench("--url", url, "--rate", "1000", "--requests", "8", "--max-concurrency", "1", "--warmup", "0")
    figures = group_of(run)
    assert server.most_at_once == 1
    assert figures["delay_ms"]["max"] > 600
    assert figures["e2e_ms"]["max"] > 700


@pytest.mark.slow
def test_duration_ends_a_closed_loop() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--duration", "0.3", "--concurrency", "3")
    assert group_of(run)["ok"] == len(server.requests) - 1 > 3
    assert json.loads(run.stdout.splitlines()[-1])["settings"]["load"] == "timed"


@pytest.mark.slow
def test_soak_compares_its_last_part_with_the_first() -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--url", url, "--soak", "1")
    [target] = json.loads(run.stdout.splitlines()[-1])["targets"]
    assert list(target["groups"]) == [f"from {tenth / 10:g} s" for tenth in range(10)]
    assert list(target["within"]) == ["from 0.9 s / from 0 s"]


@pytest.mark.slow
def test_sweep_names_the_level_at_which_objectives_break() -> None:
    """The server has four slots, and needs 100 ms for an answer: at sixteen at a time, one in eight meets 180 ms."""
    with fake_server([HEAD, chunk(data(DELTA, DONE)) + LAST], gap=0.05, slots=4) as (url, _):
        run = bench("--url", url, "--sweep", "concurrency=2,4,16", "--slo", "e2e=180ms", "--attainment", "0.5")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr) == (0, "")
    assert [(entry["level"], entry["holds"]) for entry in result["sweep"]] == [(2, True), (4, True), (16, False)]
    assert result["targets"][0]["knee"]["level"] == 4
    assert "knee: concurrency 4 is the highest level at which 50% of the requests meet e2e <= 180 ms" in run.stdout


@pytest.mark.slow
def test_sweep_of_rates_runs_each_level_for_a_time() -> None:
    with fake_server(ANSWER) as (url, _):
        run = bench("--url", url, "--sweep", "rate=20,60", "--duration", "0.5", "--slo", "e2e=9s")
    [target] = json.loads(run.stdout.splitlines()[-1])["targets"]
    counts = {name: (figures["ok"], figures["goodput_share"]) for name, figures in target["groups"].items()}
    assert (run.returncode, counts) == (0, {"rate 20": (10, 1.0), "rate 60": (30, 1.0)})
    assert target["knee"]["level"] == 60


@pytest.mark.slow
def test_replay_sends_the_bodies_and_lengths_of_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"at": 5.1, "body": {"input": "hello", "stop": ["x"]}},
        {"at": 5, "input_tokens": 10_100, "output_tokens": 7},
    ]
    trace.write_text("\n".join(map(json.dumps, lines)))
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--replay", str(trace), "--warmup", "0", "--speed", "0.5")
    assert group_of(run)["ok"] == 2
    *_, drawn, whole = server.requests
    assert whole == {"model": "tiny", "input": "hello", "stop": ["x"], "stream": True}
    assert drawn["max_output_tokens"] == 7


@pytest.mark.slow
def test_lengths_are_the_servers_counts() -> None:
    """The fake server counts 10,000 tokens and one for each word of the body."""
    with fake_server(SHORT) as (url, _):
        run = bench("--url", url, "--input-tokens", "uniform:10100,10300", "--output-tokens", "3", "--requests", "12")
    counts = group_of(run)["input_tokens_per_request"]
    assert 10_095 <= counts["mean"] <= counts["max"] <= 10_305
    assert "ended before" not in run.stdout


@pytest.mark.slow
def test_answers_that_end_early_are_warned_of() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--tokens", "9", "--requests", "2", "--ignore-eos")
    assert "warning: 2 of 2 answers ended before the maximum of tokens" in run.stdout
    assert server.requests[0]["ignore_eos"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scenario", "forms", "--rate", "2"], "exclude each other"),
        (["--sweep", "rate", "--soak", "3"], "exclude each other"),
        (["--soak", "3", "--duration", "4"], "--duration is for a loop or a sweep"),
        (["--sweep", "concurrency", "--rate", "4"], "--rate is for an open loop"),
        (["--sweep", "rate=1,2", "--rate", "4"], "--rate is the first level of a sweep without levels"),
        (["--max-concurrency", "4"], "--max-concurrency needs --rate R"),
        (["--speed", "4"], "--speed needs --replay FILE"),
        (["--vs-pid", "4"], "--vs-pid needs --vs URL"),
        (["--replay", "/missing.jsonl"], "/missing.jsonl: No such file or directory"),
        (["--input-tokens", "normal:3"], "a length is N, uniform:LOW,HIGH"),
        (["--input-tokens", "file:/missing"], "file:/missing: No such file or directory"),
        (["--sweep", "users"], "is not concurrency or rate"),
        (["--rate", "0"], "must be above 0"),
        (["--slo", "ttft"], "such as ttft=200ms"),
        (["--field", "x"], "is not NAME=JSON"),
    ],
)
def test_flags_that_are_wrong_exit_2_with_the_remedy(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        status: object = main(["--url", "127.0.0.1:9", *flags])
    except SystemExit as end:  # of argparse
        status = end.code
    finally:
        signal.signal(signal.SIGTERM, handler)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert message in err


@given(st.sampled_from(["poisson", "constant"]), st.floats(0.1, 100), st.integers(1, 50), st.integers(0, 9))
def test_arrivals_begin_at_once_and_ascend(kind: str, rate: float, count: int, seed: int) -> None:
    times = arrivals(kind, rate, count, random.Random(seed))
    assert (len(times), times[0], times) == (count, 0.0, sorted(times))


def test_arrivals_have_the_rate_on_average() -> None:
    times = arrivals("poisson", 50, 20_001, random.Random(1))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = times[-1] / 20_000
    assert mean == pytest.approx(1 / 50, rel=0.03)
    # The variance of an exponential distribution is the square of its mean.
    assert sum((gap - mean) ** 2 for gap in gaps) / 20_000 == pytest.approx(mean**2, rel=0.06)
    assert arrivals("constant", 4, 3, random.Random(1)) == [0.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("text", "low", "high", "median"),
    [("64", 64, 64, 64), ("uniform:10,30", 10, 30, 20), ("lognormal:100,0.5", 1, 10_000, 100)],
)
def test_length_draws_its_distribution(text: str, low: int, high: int, median: int) -> None:
    rng = random.Random(2)
    drawn = sorted(Length.parse(text).draw(rng) for _ in range(4001))
    assert low <= drawn[0] <= drawn[-1] <= high
    assert drawn[2000] == pytest.approx(median, rel=0.05)


def test_length_of_a_file_draws_its_numbers(tmp_path: Path) -> None:
    file = tmp_path / "lengths"
    file.write_text("5\n9\n")
    drawn = {Length.parse(f"file:{file}").draw(random.Random(seed)) for seed in range(20)}
    assert drawn == {5, 9}


@pytest.mark.parametrize("text", ["0", "", "x", "uniform:5", "uniform:9,5", "lognormal:5", "file:"])
def test_length_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a length is N, uniform:LOW,HIGH"):
        Length.parse(text)


def level(seconds: float, good: int, count: int) -> Group:
    return Group([Record(end=seconds if index < good else 9.0, output_tokens=1) for index in range(count)], 1.0)


def swept(sweep: Sweep, measure: Callable[[float], Group]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    sweep.run(measure, groups)
    return groups


@pytest.mark.parametrize(
    ("limit", "tried", "knee"),
    [
        (0.5, [1], None),
        (1, [1, 2], 1),
        (5, [1, 2, 4, 5, 6, 8], 5),
        (6, [1, 2, 4, 6, 7, 8], 6),
        (11, [1, 2, 4, 8, 10, 11, 12, 16], 11),
    ],
)
def test_sweep_searches_the_knee(limit: float, tried: list[int], knee: int | None) -> None:
    sweep = Sweep("concurrency", Objectives.parse("e2e=1s"))
    groups = swept(sweep, lambda users: level(0.5, 10 if users <= limit else 5, 10))
    assert [entry["level"] for entry in sweep.entries(groups)] == tried
    assert sweep.knee(groups) == knee


def test_sweep_of_rates_halves_the_interval() -> None:
    sweep = Sweep("rate", Objectives.parse("e2e=1s"), first=0.5)
    groups = swept(sweep, lambda rate: level(0.5, 10 if rate <= 1.3 else 5, 10))
    assert [entry["level"] for entry in sweep.entries(groups)] == [0.5, 1, 1.25, 1.375, 1.5, 2]
    assert sweep.knee(groups) == 1.25


def test_knee_is_below_the_first_level_that_breaks() -> None:
    sweep = Sweep("concurrency", Objectives.parse("e2e=1s"), levels=[1, 2, 3])
    groups = swept(sweep, lambda users: level(0.5, 5 if users == 2 else 10, 10))
    assert [entry["holds"] for entry in sweep.entries(groups)] == [True, False, True]
    assert sweep.knee(groups) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"at": 3.5, "input_tokens": 5, "output_tokens": 7}', Arrival(0.0, 5, 7)),
        ('{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46]}', Arrival(0.0, 6955, 52)),
        ('{"at": 1, "body": {"input": "x"}}', Arrival(0.0, body={"input": "x"})),
        (Record(start=4.0, planned=3.9, input_tokens=5, output_tokens=7).to_json(), Arrival(0.0, 5, 7)),
        (Record(start=4.0, input_tokens=5, output_tokens=7).to_json(), Arrival(0.0, 5, 7)),
    ],
)
def test_trace_reads_three_forms(tmp_path: Path, line: str, expected: Arrival) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(f"{line}\n\n")
    assert read_trace(file) == [expected]


def test_trace_is_ordered_from_its_first_request_at_any_speed(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text("\n".join(f'{{"timestamp": {at}, "input_length": 1, "output_length": 1}}' for at in (3000, 1000)))
    assert [arrival.at for arrival in read_trace(file, speed=4)] == [0.0, 0.5]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"at": "x", "input_tokens": 1, "output_tokens": 1}', "no"])
def test_trace_that_cannot_be_read_names_the_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"line 1: no time|has no request"):
        read_trace(file)
