"""Codex CLI in WebSocket mode: it warms up, and each further request has only its new items."""

import logging
import re
from pathlib import Path

import pytest

from tests.server.upstream.fronts import Served
from tests.system.clients import test_codex
from tests.system.clients.test_codex import at, gist, run, writer

pytestmark = pytest.mark.slow
codex = test_codex.codex


async def test_codex_over_websocket_runs_a_call_and_continues(
    served: Served, codex: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "responsed.http")
    async with at(served, tmp_path, writer) as running:
        config = tmp_path / "config.toml"
        wire_api = 'wire_api = "responses"\n'
        config.write_text(config.read_text().replace(wire_api, f"{wire_api}supports_websockets = true\n"))
        first = await run(codex, tmp_path, "Write it.")
        second = await run(codex, tmp_path, "resume", "--last", "And again.")
    assert ("agent_message", "Words: 1.") in gist(first)
    assert ("agent_message", "Words: 2.") in gist(second)
    assert (tmp_path / "work" / "words.txt").read_text() == "word\nword\n"
    requests = re.findall(r" req_\w+ \S+ ([A-Z]+ /v1/responses \d+) ", caplog.text)
    each_turn = ["WEBSOCKET /v1/responses 200"] * 3  # the warm-up, the call, and the text about its output
    assert requests == [*each_turn, "GET /v1/responses 101"] * 2
    answers = re.findall(r" /v1/responses websocket .*\(cached (\d+)\), out [1-9]", caplog.text)
    # Upstreams cannot be warmed, so the first of the two answers of each session may find nothing.
    cached = [int(count) for count in (answers[1::2] if running.sends_chat else answers)]
    assert min(cached) > 10_000, "each prompt continues the one before, and the first its warm-up"
