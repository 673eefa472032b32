"""Servers that the bench starts, and the figures of their processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ProcessMeter, ServerProcess, is_command
from processes.process_meter import ProcessUse, process_use

from tests.bench.fake_server import SHORT, bench, fake_server
from tests.support.processes import ROOT

pytestmark = pytest.mark.slow

FAKE = f"{sys.executable} {ROOT / 'tests' / 'bench' / 'fake_process.py'} --port {{port}}"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("127.0.0.1:8080", False),
        ("https://a/v1", False),
        ("unix:/run/x", False),
        ("responsed serve", True),
        (" http://a ", False),
    ],
)
def test_command_has_a_blank(text: str, command: bool) -> None:
    assert is_command(text) is command


def test_serve_starts_a_server_measures_its_process_and_stops_it() -> None:
    run = bench("--serve", FAKE, "--requests", "20", "--warmup", "0")
    assert (run.returncode, run.stderr) == (0, "")
    [target] = json.loads(run.stdout.splitlines()[-1])["targets"]
    process = target["process"]
    assert target["groups"]["all"]["ok"] == 20
    assert process["peak_rss_mb"] >= process["rss_mb"] > 5
    assert process["threads"] >= 1
    assert process["cpu_s_per_1000_output_tokens"] == pytest.approx(1000 * process["cpu_s"] / 60, abs=1)
    assert not Path(f"/proc/{process['pid']}").exists()


def test_vs_command_alternates_with_a_url() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--vs", FAKE, "--requests", "3", "--rounds", "2", "--warmup", "0")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr, len(server.requests)) == (0, "", 6)
    assert [target["groups"]["all"]["ok"] for target in result["targets"]] == [6, 6]
    assert result["targets"][0]["process"] is None
    assert result["ratios"]["all"]["ttft_ms"]["p50"].keys() == {"ratio", "low", "high"}


def test_cold_start_counts_from_the_start_of_the_process() -> None:
    run = bench("--serve", FAKE, "--scenario", "cold-start", "--rounds", "2")
    [target] = json.loads(run.stdout.splitlines()[-1])["targets"]
    groups = target["groups"]
    assert (run.returncode, run.stderr) == (0, "")
    assert {name: group["ok"] for name, group in groups.items()} == {"ready": 2, "first token": 2, "next": 10}
    assert groups["first token"]["ttft_ms"]["mean"] > groups["ready"]["ready_ms"]["mean"] > 10
    assert groups["next"]["ttft_ms"]["p50"] < groups["ready"]["ready_ms"]["p50"]


def test_restart_counts_the_time_without_a_server() -> None:
    run = bench("--serve", FAKE, "--scenario", "restart")
    [target] = json.loads(run.stdout.splitlines()[-1])["targets"]
    groups = target["groups"]
    assert run.stderr == ""
    assert {name: group["ok"] + group["errors"] for name, group in groups.items()} == {
        "before": 5, "in flight": 2, "restarted": 1, "after": 5
    }  # fmt: skip
    assert groups["restarted"]["ttft_ms"]["max"] > groups["after"]["ttft_ms"]["max"]
    assert list(target["within"]) == ["after / before"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"{sys.executable} -c 'import sys; sys.exit(\"no model\")' --port 1", "no model"),
        (f"{sys.executable} -c 'raise SystemExit(3)' --port {{port}}", "since its process ended"),
        ("/missing/server --port {port}", "No such file or directory"),
        (f"{sys.executable} -m http.server", "has no --port {port}"),
    ],
)
def test_serve_of_a_server_that_does_not_start_shows_its_last_words(command: str, words: str) -> None:
    run = bench("--serve", command)
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr
    assert run.stderr.startswith("bench: ")


def test_server_process_has_the_url_of_its_port() -> None:
    for command, url, expected in (
        ("responsed serve --port 8123", None, "http://127.0.0.1:8123"),
        ("responsed serve", "unix:/run/x", "unix:/run/x"),
    ):
        process = ServerProcess(command, url)
        process.close()
        assert process.url == expected


def test_process_use_adds_up_children() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        own, both = process_use(child.pid), process_use(os.getpid())
        assert own is not None
        assert both is not None
        assert both.rss > own.rss > 1_000_000
        assert own.threads == 1
        child.communicate(b"\n")
    assert process_use(child.pid) is None


def test_process_meter_counts_cpu_between_begin_and_end() -> None:
    uses = [ProcessUse(5_000_000, cpu, 3) for cpu in (1.0, 1.5, 4.0)]
    meter = ProcessMeter(lambda: 7, lambda pid: uses.pop(0))
    meter.begin()
    meter.end()
    assert meter.figures(500) == {
        "pid": 7,
        "rss_mb_before": 5.0,
        "rss_mb": 5.0,
        "peak_rss_mb": 5.0,
        "threads": 3,
        "cpu_s": 2.5,
        "cpu_s_per_1000_output_tokens": 5.0,
    }


def test_pid_that_does_not_run_is_refused() -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--url", url, "--pid", "4194399")
    assert (run.returncode, run.stderr) == (2, "bench: --pid 4194399: no such process\n")


def test_bench_command_imports_nothing_of_the_server() -> None:
    code = """
import sys
import time
sys.argv = ["responsed", "bench", "--url", "127.0.0.1:1"]
from server.__main__ import main
status = main()
print(status, sorted(name for name in sys.modules if name.partition(".")[0] in ("engine", "server", "trio", "numpy")))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stdout == "2 ['server', 'server.__main__', 'server.bench_command']\n"
    assert run.stderr == "bench: 127.0.0.1:1: Connection refused; start the server, or correct the address\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_bench_stops_its_server_prints_the_figures_and_exits_130(number: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--serve", FAKE, "--duration", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        while not (started := children.read_text().split()):
            time.sleep(0.02)
        time.sleep(3)
        run.send_signal(number)
        output, errors = run.communicate(timeout=30)
        assert (errors, run.returncode) == ("", 130)
    assert not Path(f"/proc/{started[0]}").exists()
    assert "INTERRUPTED: these are the figures of the complete requests" in output
    result = json.loads(output.splitlines()[-1])
    figures = result["targets"][0]["groups"]["all"]
    assert (result["interrupted"], figures["ok"] > 3, figures["errors"]) == (True, True, 0)
    assert figures["output_tokens"] == 3 * figures["ok"]
