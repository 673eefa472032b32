"""More conversations than slots: each finds all of its earlier turns in the cache."""

import http.client
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import PATIENCE
from tests.support.processes import Daemon, serving

pytestmark = pytest.mark.slow

STORY = (
    "Once there was a lighthouse keeper who counted ships. Every evening he wrote their number into a book, with the "
    "weather, the moon and the name of the wind. On calm days he counted gulls instead. After forty years he owned "
    "forty books, and nobody had read a single one of them. Then a girl came up the stairs and asked for the ships of "
    "the night on which she was born. He found the page at once: three ships, fog, a new moon, and no wind at all. "
)
TURNS = 4
TALKERS = 6


def ask(connection: http.client.HTTPConnection, items: list[Any]) -> tuple[str, float]:
    """Return the answer and the cached share of the prompt."""
    body = json.dumps({"model": "tiny", "input": items, "max_output_tokens": 12})
    connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200, answer
    text = "".join(part["text"] for item in answer["output"] for part in item.get("content", ()))
    usage = answer["usage"]
    return text, usage["input_tokens_details"]["cached_tokens"] / usage["input_tokens"]


def rotate(daemon: Daemon, talks: list[list[Any]], turns: range) -> list[float]:
    """Let all conversations have these turns, one after the other; return the cached shares of the prompts."""
    connection = daemon.connection()
    shares: list[float] = []
    for turn in turns:
        for talker, items in enumerate(talks):
            items.append({"role": "user", "content": f"{2 * STORY if turn == 0 else ''}Tell me, {talker}.{turn}?"})
            text, share = ask(connection, items)
            items.append({"role": "assistant", "content": text})
            shares.append(share)
    connection.close()
    return shares


def wait_restored(daemon: Daemon) -> None:
    """Return once the last run's prefixes are in memory: they are read while the server works already."""
    deadline = time.monotonic() + PATIENCE
    while "restored" not in daemon.log.read_text():
        assert time.monotonic() < deadline, daemon.log.read_text()
        time.sleep(0.05)


def test_conversations_in_turn_find_their_earlier_turns_also_after_a_restart(tiny: Path, tmp_path: Path) -> None:
    """Two slots, six conversations, default fields, whole history sent."""
    flags = ("--model", str(tiny), "--slots", "2", "--context", "4096", "--alias", "*")
    talks: list[list[Any]] = [[{"role": "system", "content": f"You are talker {talker}."}] for talker in range(TALKERS)]
    with serving(tmp_path, *flags) as daemon:
        rotate(daemon, talks, range(1))
        shares = rotate(daemon, talks, range(1, TURNS - 1))
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0
    assert "prefix cache: up to " in daemon.log.read_text()
    assert sum(shares) / len(shares) >= 0.9, shares
    (tmp_path / "notify").unlink()
    with serving(tmp_path, *flags) as daemon:
        wait_restored(daemon)
        shares = rotate(daemon, talks, range(TURNS - 1, TURNS))
    assert sum(shares) / len(shares) >= 0.9, shares
