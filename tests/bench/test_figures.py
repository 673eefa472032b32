"""The command that measures the README's table, against two scripted servers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from figures import LOADS, STAGES, floor, table

from engine.backends.llamacpp import library
from engine.model import EngineFault
from tests.support.processes import ROOT
from tests.support.tiny_models import write

FAKE = f"{sys.executable} {ROOT / 'tests' / 'bench' / 'fake_process.py'} --port {{{{port}}}}"


def group(value: float | None) -> dict[str, object]:
    measures = {f"{name}_ms": {"p50": value, "max": value, "mean": value} for name in ("first_byte", "ttft", "itl")}
    return measures | {"output_tokens_per_s": 93.4}


def test_table_has_the_rows_of_the_readme() -> None:
    groups = [{name: group(value) for name in ("all", "during", "long prompt")} for value in (8.549, 31_600.0)]
    rows = [{"stage": stage, "p50_ms": 0.014 + number} for number, stage in enumerate([*STAGES, "client"])]
    traced = {"targets": [{"budget": {"token": rows}}]}
    found = table([{"targets": [{"groups": each} for each in groups]}] * len(LOADS), traced, 8.18)
    assert found.splitlines()[2:5] == [
        "| one stream: first byte, first token | 8.55 ms, 8.55 ms | 31.6 s, 31.6 s |",
        "| one stream: time between tokens (bare loop: 8.18 ms) | 8.55 ms | 31.6 s |",
        "| four streams while a 2,000-token prompt arrives: longest time between tokens | 8.55 ms | 31.6 s |",
    ]
    assert found.splitlines()[-1] == (
        "| budget of a token (medians): wait, decode, sample, hand-over, encode, send, network "
        "| 0.01, 1.01, 2.01, 3.01, 4.01, 5.01, 6.01 ms | - |"
    )
    labels = [line.split("|")[1] for line in found.replace("(bare loop: 8.18 ms)", "").splitlines()]
    readme = re.sub(r"\(bare loop: [\d.]+ ms\)", "", (ROOT / "README.md").read_text())
    assert [label for label in labels[2:] if f"|{label}|" not in readme] == []


@pytest.mark.slow
def test_floor_of_a_model_is_the_time_of_a_step(tmp_path: Path) -> None:
    try:
        library.load()
    except EngineFault as fault:
        pytest.skip(str(fault))
    assert 0 < floor(str(write(tmp_path / "tiny.gguf", "qwen3"))) < 1000


@pytest.mark.slow
def test_figures_run_each_load_on_both_servers() -> None:
    command = [sys.executable, str(ROOT / "bench" / "figures.py"), "--model", "none", "--no-floor"]
    done = subprocess.run(
        [*command, "--ours", FAKE, "--theirs", FAKE], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [len(each["targets"]) for each in result["results"]] == [*[2] * len(LOADS), 1]
    assert "network | not measured | - |" in done.stdout
    assert "| eight cold prompts at a time: output tokens/s | " in done.stdout
    assert "| one stream: time between tokens (bare loop: not measured) | " in done.stdout


@pytest.mark.slow
def test_figures_of_a_server_that_does_not_start_fail() -> None:
    command = [sys.executable, str(ROOT / "bench" / "figures.py"), "--model", "none", "--no-floor"]
    done = subprocess.run([*command, "--ours", "false --port 1"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("figures: ")
