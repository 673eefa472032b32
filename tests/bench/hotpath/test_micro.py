"""`bench/micro.py`: every figure is there, and a median beyond its goal is said to be missed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from micro import CostFigure

BENCH = Path(__file__).parents[3] / "bench"


@pytest.mark.parametrize(
    ("values", "goal", "at_least", "missed"),
    [
        ([1.0, 2.0, 9.0], None, False, False),
        ([1.0, 2.0, 9.0], 2.0, False, False),
        ([1.0, 2.1, 9.0], 2.0, False, True),
        ([1.0, 2.0, 9.0], 2.0, True, False),
        ([1.0, 1.9, 9.0], 2.0, True, True),
    ],
)
def test_row_misses_its_goal_by_the_median(
    values: list[float], goal: float | None, at_least: bool, missed: bool
) -> None:
    row = CostFigure("a figure", "us", values, goal, at_least)
    assert row.missed is missed
    assert row.line().endswith("missed") is missed


@pytest.mark.slow
def test_streams_have_the_cost_of_each_thread() -> None:
    """One core carries three streams of 50 tokens/s on any machine; the rest depends on the machine."""
    code = """
import json, micro
micro.use_one_core()
micro.SECONDS = 0.2
rows = [*micro.part_rows(1), *micro.stream_rows(1, 100.0, 2), *micro.stream_rows(3, 50.0, 2)]
print(json.dumps([[row.name, row.unit, row.values] for row in rows]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=BENCH)
    assert (run.returncode, run.stderr) == (0, "")
    rows = json.loads(run.stdout)
    assert [name for name, _, _ in rows] == [
        "encode one delta",
        "encode 16 deltas together",
        "hand over one output: inference thread",
        "hand over one output: event loop",
        "one write to a socket",
        "1 stream of 100 tokens/s: hand-over to socket, p50",
        "1 stream of 100 tokens/s: event loop",
        "1 stream of 100 tokens/s: inference thread",
        "1 stream of 100 tokens/s: needed of one core",
        "1 stream of 100 tokens/s: reached",
        "3 streams of 50 tokens/s: event loop",
        "3 streams of 50 tokens/s: inference thread",
        "3 streams of 50 tokens/s: needed of one core",
        "3 streams of 50 tokens/s: reached",
    ]
    assert all(value > 0 for _, _, values in rows for value in values)
    assert [len(values) for _, _, values in rows[5:]] == [2] * 9
