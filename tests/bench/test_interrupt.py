"""SIGINT in the middle of a run: the figures so far, and exit status 130."""

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.bench.fake_server import SHORT, fake_server
from tests.support.processes import ROOT

pytestmark = pytest.mark.slow

SECONDS = 0.25
"""Duration of an answer: five writes, 50 ms apart."""


def interrupted(flags: list[str], requests: int) -> tuple[int, str, dict[str, Any]]:
    """Interrupt a bench after that many requests have begun; return its status, its stderr and its result."""
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--quiet", "--warmup", "0", *flags]
    with fake_server(SHORT, gap=SECONDS / 5) as (url, server):
        command += ["--url", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            while len(server.requests) < requests and run.poll() is None:
                time.sleep(0.01)
            time.sleep(SECONDS / 2)  # into the middle of an answer
            run.send_signal(signal.SIGINT)
            output, errors = run.communicate(timeout=30)
    return run.returncode, errors, json.loads(output.splitlines()[-1]) if output else {}


@pytest.mark.parametrize(
    ("flags", "requests", "answered"),
    [
        (["--requests", "100"], 4, {"all": 3}),
        (["--requests", "4", "--rounds", "9"], 6, {"all": 5}),
        (["--duration", "60"], 4, {"all": 3}),
        (["--rate", "2", "--arrivals", "constant", "--duration", "60"], 3, {"all": 2}),
        (["--scenario", "concurrent", "--requests", "3"], 6, {"1 at a time": 3, "2 at a time": 1}),
        (["--sweep", "concurrency=1,2,4", "--requests", "4"], 6, {"concurrency 1": 4}),
        (["--soak", "600"], 4, {"from 0 s": 3}),
        (["--scenario", "warm-restart", "--restart", "sleep 1", "--rounds", "9"], 4, {"cold": 1, "restarted": 1}),
    ],
)
def test_interrupt_prints_the_figures_of_complete_requests(
    flags: list[str], requests: int, answered: dict[str, int]
) -> None:
    status, errors, result = interrupted(flags, requests)
    assert (status, errors, result["interrupted"], result["errors"]) == (130, "", True, 0)
    found = result["targets"][0]["groups"]
    assert [*found] == [*answered]
    for name, count in answered.items():  # on a slow machine, more requests begin before the signal
        assert found[name]["ok"] >= count
        assert found[name]["output_tokens"] == 3 * found[name]["ok"]


def test_interrupt_before_the_first_answer_says_so() -> None:
    status, errors, result = interrupted(["--requests", "100"], 1)
    assert (status, errors, result) == (130, "bench: interrupted before there was a figure\n", {})
