"""The change since an older run, and its budget."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from reports import comparison
from reports.comparison import FigureChange, changes, differences, past_budget, read, text

from tests.bench.reports.sample import records, result

GROUP = {
    "ttft_ms": {"n": 200, "p50": 100.0, "p99": 200.0},
    "itl_ms": {"n": 50, "p50": 10.0, "p99": None},
    "output_tokens_per_s": 50.0,
    "cached_share": 0.5,
    "noise": {"ttft_ms": {"rounds": 3, "min": 95.0, "median": 100.0, "max": 105.0}},
}


def run(**group: Any) -> dict[str, Any]:
    target = {"url": "http://a", "model": "m", "groups": {"all": GROUP | group}}
    settings = {"load": "single", "tokens": 64, "json": "x.json"}
    machine = {"cpu": "N100", "date": "now", "governor": "performance"}
    return {
        "schema": 1,
        "date": "2026-11-27T01:00:00+00:00",
        "settings": settings,
        "environment": {"machine": machine, "servers": [{"version": "1"}]},
        "targets": [target],
    }


def test_changes_are_shares_of_the_old_figures() -> None:
    new = run(
        ttft_ms={"n": 9, "p50": 110.0, "p99": None},
        output_tokens_per_s=45.0,
        noise={"ttft_ms": {"rounds": 2, "min": 88.0, "median": 110.0, "max": 132.0}},
    )
    found = changes(run(), new)
    assert [(each.figure, each.point, round(each.change, 6), each.noise) for each in found] == [
        ("ttft_ms", "p50", 0.1, 0.2),
        ("itl_ms", "p50", 0.0, None),
        ("output_tokens_per_s", "", -0.1, None),
    ]
    assert [round(each.worse, 6) for each in found] == [0.1, 0.0, 0.1]


@pytest.mark.parametrize(
    ("figure", "point", "change", "budget", "is_past"),
    [
        ("ttft_ms", "p50", 0.06, 0.05, True),
        ("ttft_ms", "p50", 0.05, 0.05, False),
        ("ttft_ms", "p50", -0.5, 0.05, False),
        ("ttft_ms", "p99", 0.5, 0.05, False),  # tails are printed only
        ("output_tokens_per_s", "", -0.06, 0.05, True),
        ("output_tokens_per_s", "", 0.5, 0.05, False),
        ("ttft_ms", "p50", 9.0, None, False),
    ],
)
def test_budget_limits_medians_and_rates(
    figure: str, point: str, change: float, budget: float | None, is_past: bool
) -> None:
    found = FigureChange("all", figure, point, 1.0, 1.0 + change, change, None)
    assert past_budget([found], budget) == [found] * is_past


TEXT = """\
compared with the run of 2026-11-27T01:00:00+00:00 on http://a
the runs differ: settings: tokens was 64, is 128
the runs differ: machine: governor was performance, is powersave

                                                    old        new    change    noise  finding
all ttft p50, ms                                    100        104     +4.0%    ±5.0%  within the noise, past the budget
all ttft p99, ms                                    200        260    +30.0%        -  worse?
all itl p50, ms                                    10.0       10.0     +0.0%        -  equal
all output tokens/s overall                        50.0       40.0    -20.0%        -  worse?, past the budget

noise: half the range of the medians of the rounds, of the noisier run
better? and worse?: the noise is unknown, as of every tail; give both runs --rounds 3 for the others
past the budget of 3%: all ttft p50, ms; all output tokens/s overall
a change within the noise is no finding: repeat the run with more --rounds on a quiet machine"""


def test_text_is_exact() -> None:
    old, new = run(), run(ttft_ms={"n": 9, "p50": 104.0, "p99": 260.0}, output_tokens_per_s=40.0)
    new["settings"]["tokens"] = 128
    new["environment"]["machine"]["governor"] = "powersave"
    assert text(old, new, changes(old, new), 0.03) == TEXT


def test_text_says_which_change_is_better() -> None:
    noisy = {"noise": {"output_tokens_per_s": {"rounds": 2, "min": 49.0, "median": 50.0, "max": 51.0}}}
    old, new = run(**noisy), run(output_tokens_per_s=60.0, ttft_ms={"n": 9, "p50": 110.0, "p99": None}, **noisy)
    lines = text(old, new, changes(old, new), 0.2).splitlines()
    assert lines[2:] == [
        "                                                    old        new    change    noise  finding",
        "all ttft p50, ms                                    100        110    +10.0%        -  worse?",
        "all itl p50, ms                                    10.0       10.0     +0.0%        -  equal",
        "all output tokens/s overall                        50.0       60.0    +20.0%    ±2.0%  better",
        "",
        "noise: half the range of the medians of the rounds, of the noisier run",
        "better? and worse?: the noise is unknown, as of every tail; give both runs --rounds 3 for the others",
        "no median and no rate is worse by more than the budget of 20%",
    ]


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (None, "100", "was not given, is 100"),
        (False, True, "was off, is on"),
        ([["top_k", 1]], None, 'was [["top_k", 1]], is not given'),
    ],
)
def test_settings_that_differ_are_words(then: Any, now: Any, words: str) -> None:
    old, new = run(), run()
    old["settings"]["input_tokens"], new["settings"]["input_tokens"] = then, now
    assert differences(old, new) == [f"settings: input tokens {words}"]


def test_runs_of_one_load_and_machine_have_no_differences() -> None:
    old, new = run(), run()
    new["settings"]["json"] = "y.json"
    new["environment"]["machine"]["date"] = "later"
    assert differences(old, new) == []


def test_read_takes_the_last_line(tmp_path: Path) -> None:
    whole = result(records(), 2)
    (tmp_path / "stdout").write_text(f"a table\n\n{json.dumps(whole)}\n")
    assert read(tmp_path / "stdout") == json.loads(json.dumps(whole))
    assert {each.change for each in changes(whole, deepcopy(whole))} == {0.0}
    assert comparison.as_json(changes(whole, whole), 0.05)["past_budget"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "is not the result of a run; save one with --json FILE"),
        ("{}", "is not the result of a run; save one with --json FILE"),
        ("[1]", "is not the result of a run; save one with --json FILE"),
        ('{"schema": 9, "targets": [1]}', "has the schema 9, not 1"),
    ],
)
def test_read_refuses_other_files(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"old.json {message}"):
        read(path)
