"""Codex CLI in WebSocket mode: it warms up, and each further request has only its new items."""

import logging
import re
from pathlib import Path

import pytest

from tests.system.clients import test_codex
from tests.system.clients.test_codex import at, gist, run, writer

pytestmark = pytest.mark.slow
codex = test_codex.codex


async def test_codex_over_websocket_runs_a_call_and_continues(
    codex: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "responsed.http")
    async with at(tmp_path, writer):
        config = tmp_path / "config.toml"
        wire_api = 'wire_api = "responses"\n'
        config.write_text(config.read_text().replace(wire_api, f"{wire_api}supports_websockets = true\n"))
        first = await run(codex, tmp_path, "Write it.")
        second = await run(codex, tmp_path, "resume", "--last", "And again.")
    assert ("agent_message", "Words: 1.") in gist(first)
    assert ("agent_message", "Words: 2.") in gist(second)
    assert (tmp_path / "work" / "words.txt").read_text() == "word\nword\n"
    requests = re.findall(r" req_\w+ \S+ ([A-Z]+ \S+ \d+) ", caplog.text)
    each_turn = ["WEBSOCKET /v1/responses 200"] * 3  # the warm-up, the call, and the text about its output
    assert requests == [*each_turn, "GET /v1/responses 101"] * 2
    cached = [int(count) for count in re.findall(r"\(cached (\d+)\)", caplog.text)]
    assert min(cached[1:]) > 10_000, "the second and later prompts continue the first"
