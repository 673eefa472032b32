"""`bench/run.py --trace` against a daemon with a scripted model, and against a server that knows no such field."""

import json

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from tests.bench.fake_server import SHORT, bench, fake_server
from tests.support.helpers import served

pytestmark = pytest.mark.slow

BEHIND = ["sample", "hand-over", "encode", "send", "network", "client"]


@pytest.mark.parametrize("api", ["responses", "chat", "completions"])
async def test_trace_finds_a_slow_decode_in_the_budget(api: str) -> None:
    model = ScriptedModel(lambda message: b"x" * 100, seconds_per_token=0.02)
    async with served(model, token_times=True) as running:
        flags = (
            "--url",
            running.url,
            "--trace",
            "--requests",
            "2",
            "--tokens",
            "8",
            "--prompt-words",
            "4",
            "--api",
            api,
        )
        run = await trio.to_thread.run_sync(bench, *flags)
    assert (run.returncode, run.stderr) == (0, "")
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["settings"]["deviations"][0] == "return_token_times: true"
    budget = result["targets"][0]["budget"]
    assert (budget["requests"], budget["clock"]) == (2, "shared")
    assert [row["stage"] for row in budget["token"]] == ["wait", "decode", *BEHIND]
    assert [row["stage"] for row in budget["first_token"]] == ["connect", "prepare", "queue", "prefill", *BEHIND]
    assert all(row["mean_ms"] >= 0 for rows in (budget["token"], budget["first_token"]) for row in rows)
    decode = budget["token"][1]
    assert decode["p50_ms"] >= 20
    ttft = result["targets"][0]["groups"]["all"]["ttft_ms"]["mean"]
    assert sum(row["mean_ms"] for row in budget["first_token"][:-1]) == pytest.approx(ttft, abs=0.01)
    assert "decode begun - decoded" in run.stdout


def test_trace_of_another_server_names_the_setting() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--trace", "--requests", "1")
    assert run.returncode == 0
    assert server.requests[-1]["return_token_times"] is True
    assert "responsed sends them if it runs with --token-times true" in run.stdout
    assert json.loads(run.stdout.splitlines()[-1])["targets"][0]["budget"] is None
