"""kill -9, at any moment, while fifty responses are made: what a client has read to its end is there, and nothing else
is half there."""

import json
import random
import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from server.stream.replay import STOPPED
from tests.support import wire
from tests.support.helpers import PATIENCE, Client, Closed, get, post
from tests.support.processes import Daemon, serving

pytestmark = pytest.mark.slow

STREAMS = 50
ROUNDS = 4
DEEPEST = 3
"""Turns in a chain."""
FLAGS = (
    "--context",
    "1024",
    "--alias",
    "scripted",
    "--slots",
    "4",
    "--queue",
    str(STREAMS),
    "--kv-snapshot-megabytes",
    "0",
)
ENDS = ("completed", "incomplete")


class Seen(Struct):
    """A client's knowledge of a response."""

    id: str = ""
    previous: "Seen | None" = None
    background: bool = False
    body: bytes = b""
    """So far, of a stream; all, of what is not streamed."""
    streamed: bool = False
    ended: bool = False
    """Its end was read."""
    outcome: str = ""
    """After the crash: whole, interrupted, or never begun."""
    kept: bytes = b""
    replayed: bytes = b""
    """Answer of the restarted server."""

    @property
    def depth(self) -> int:
        return 1 if self.previous is None else 1 + self.previous.depth


class Storm:
    """Fifty clients, until the server dies under them."""

    def __init__(self, daemon: Daemon, known: list[Seen], seed: int) -> None:
        self._daemon = daemon
        self._known = known
        self._random = random.Random(seed)
        self._left = self._random.randrange(5, 600)
        """Bytes to read before it disconnects."""
        self._slots = trio.CapacityLimiter(STREAMS // 2)

    async def run(self) -> None:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(STREAMS):
                    nursery.start_soon(self._ask)
        self._daemon.process.kill()
        self._daemon.wait()

    async def _ask(self) -> None:
        async with self._slots:
            with suppress(Closed, OSError, trio.BrokenResourceError):
                async with await Client.to(self._daemon) as client:
                    await self._follow(client, self._begin())

    def _begin(self) -> Seen:
        """Every second one goes on from another; every third one is made in the background."""
        ends = [seen for seen in self._known if seen.ended and not seen.background and seen.depth < DEEPEST]
        ends = ends[-1:] * len(ends) + ends  # mostly the last: chains are to become long
        previous = self._random.choice(ends) if ends and self._random.random() < 0.5 else None
        return Seen(previous=previous, background=self._random.random() < 0.3, streamed=self._random.random() < 0.8)

    async def _follow(self, client: Client, seen: Seen) -> None:
        await client.create(
            input=self._random.choice(("hello", "world")),
            stream=seen.streamed,
            background=seen.background,
            previous_response_id=seen.previous.id if seen.previous else None,
            max_output_tokens=self._random.randrange(1, 12),
        )
        if not seen.streamed:
            answer = await client.answer()
            assert answer.status == 200, answer.body
            seen.id, seen.body, seen.ended = answer.json["id"], answer.body, not seen.background
            self._known.append(seen)
            return self._count()
        assert (await client.head()).status == 200
        while chunk := await client.chunk():
            seen.body += chunk
            if not seen.id:
                seen.id = json.loads(wire.parse_sse(chunk)[0].data)["response"]["id"]
                self._known.append(seen)
            seen.ended = seen.ended or any(b"event: response.%b\n" % end.encode() in chunk for end in ENDS)
            self._count()
        return None

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._daemon.process.kill()


async def check(daemon: Daemon, seen: Seen) -> None:
    """That it is as its client knows it; and from then on, as it is now."""
    found = await get(daemon, f"/v1/responses/{seen.id}")
    again = await get(daemon, f"/v1/responses/{seen.id}?stream=true")
    if seen.outcome:
        assert (found.body, again.body) == (seen.kept, seen.replayed)
        return
    seen.kept, seen.replayed = found.body, again.body
    if found.status == 404:  # not stored yet: only background responses are stored before they are announced
        seen.outcome = "never begun"
        assert not seen.ended
        assert not seen.background
        return
    response = found.json
    wire.check_response(response)
    *events, done = wire.parse_sse(again.body)
    assert (json.loads(events[-1].data)["response"], done.data) == (response, b"[DONE]")
    assert response["previous_response_id"] == (seen.previous.id if seen.previous else None)
    if response["status"] == "failed":
        seen.outcome = "interrupted"
        assert not seen.ended
        assert response["error"] == {"code": "server_error", "message": STOPPED}
        wire.events(again.body)
        return
    seen.outcome = "whole"
    assert response["status"] in ENDS
    if seen.streamed:
        assert again.body.startswith(seen.body)
    elif seen.ended:
        assert found.body == seen.body


def check_file(path: Path, *, unfinished: bool) -> None:
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    (count,) = database.execute("SELECT count(*) FROM responses WHERE response IS NULL").fetchone()
    assert unfinished or count == 0
    database.close()


async def test_power_cut_at_any_write_leaves_complete_responses(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "state" / "responses.db"
    known: list[Seen] = []
    for number in range(ROUNDS + 1):
        (tmp_path / "notify").unlink(missing_ok=True)
        with serving(tmp_path, "--model", str(tiny), *FLAGS) as daemon:
            for seen in known:
                await check(daemon, seen)
            if number == ROUNDS:
                await check_chains(daemon, known)
            else:
                await Storm(daemon, known, number).run()
        check_file(path, unfinished=number < ROUNDS)
    print(Counter(seen.outcome for seen in known), len(known))
    assert {seen.outcome for seen in known} >= {"whole", "interrupted"}


async def check_chains(daemon: Daemon, known: list[Seen]) -> None:
    """The deepest ones: the prompt contains the whole conversation."""
    deepest = sorted((seen for seen in known if seen.ended), key=lambda seen: seen.depth)[-5:]
    for seen in deepest:
        before = (await get(daemon, f"/v1/responses/{seen.id}")).json["usage"]
        after = (await post(daemon, input="hello", previous_response_id=seen.id, max_output_tokens=1)).json["usage"]
        assert after["input_tokens"] > before["input_tokens"] + before["output_tokens"]
    assert deepest[-1].depth > 1
