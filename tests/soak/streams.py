"""Promise: each stream ends with exactly one terminal event, however its client or the engine ends it.

Clients over SSE and WebSocket read to the end, hang up, half-close, reset or cancel at a random event, while the engine
fails at random. A client that leaves finds its response in the store, with a stream that goes on from the events that
it read.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from engine.backends.scripted import Reply, ScriptedModel
from engine.model import ModelError
from tests.soak.bounds import Bounds
from tests.support import wire
from tests.support.helpers import PATIENCE, Client, Closed, Running, exchange, get, served
from tests.support.websockets import SESSION_EVENTS, TERMINAL, SocketClient

CLIENTS = 16
SLOTS = 4
THOROUGH = 10
"""Every tenth stream passes all checks of `wire`, which take longer than the stream."""
HTTP_ENDS = ("read", "read", "FIN", "RST", "half-close", "cancel")
SOCKET_ENDS = ("read", "read", "FIN", "RST", "half-close", "close frame")
CLOSE_FRAME = b"\x88\x80\0\0\0\0"

Event = dict[str, Any]


class Unexpected(Exception):
    """An error that the engine doesn't know."""


def unsteady(chance: random.Random) -> Reply:
    """Reply to `die...` with an engine fault at a random token, and to others with their message."""

    def reply(message: bytes) -> bytes:
        if message.startswith(b"die") and chance.random() < 0.15:
            raise chance.choice((ModelError, Unexpected))("the model broke")
        return message

    return reply


class Streams:
    """Clients of one server, and the count of the ends of their streams."""

    def __init__(self, running: Running, chance: random.Random) -> None:
        self._running = running
        self._chance = chance
        self.ends: Counter[str] = Counter()
        """Streams by way of their client and status of their response."""

    async def run(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            thorough = number % THOROUGH == 0
            with trio.fail_after(PATIENCE):
                if self._chance.random() < 0.5:
                    await self._http(thorough)
                else:
                    await self._websocket(thorough)

    def _fields(self, way: str) -> dict[str, Any]:
        """Return the input and its limit; a client that leaves asks for more than it reads."""
        characters = self._chance.randrange(12) if way == "read" else 400
        text = self._chance.choice(("die", "live")) + "x" * characters
        return {"input": text, "max_output_tokens": self._chance.randrange(1, 16 if way == "read" else 400)}

    async def _http(self, thorough: bool) -> None:
        way, after = self._chance.choice(HTTP_ENDS), self._chance.randrange(12)
        body = b""
        async with await Client.to(self._running) as client:
            await client.create(**self._fields(way), stream=True, background=way == "cancel")
            response_id, body = await client.created()
            while way == "read" or body.count(b"\n\n") <= after:
                if not (chunk := await client.chunk()):
                    break
                body += chunk
            match way:
                case "RST":
                    await client.reset()
                case "half-close":
                    await client.half_close()
                    with suppress(Closed):
                        body += await client.rest_of_stream()
                case "cancel":
                    await exchange(self._running, "POST", f"/v1/responses/{response_id}/cancel")
                    if not body.endswith(b"[DONE]\n\n"):
                        body += await client.rest_of_stream()
        whole = await self._replayed(response_id, f"SSE {way}", thorough)
        assert whole.startswith(body), f"{way}: the client read {body!r}, the stored stream is {whole!r}"
        assert way not in ("read", "cancel") or whole == body, f"{way}: the stream is cut: {body!r}"

    async def _websocket(self, thorough: bool) -> None:
        way, after = self._chance.choice(SOCKET_ENDS), self._chance.randrange(12)
        events: list[Event] = []
        async with await SocketClient.to(self._running) as client:
            await client.create(**self._fields(way))
            while not events or (events[-1]["type"] not in TERMINAL and (way == "read" or len(events) <= after)):
                if (event := await client.event())["type"] not in SESSION_EVENTS:
                    events.append(event)
            match way:
                case "RST":
                    await client.http.reset()
                case "half-close":
                    await client.http.half_close()
                    await client.http.rest()
                case "close frame":
                    await client.http.send(CLOSE_FRAME)
                    await client.http.rest()
        whole = await self._replayed(events[0]["response"]["id"], f"WebSocket {way}", thorough)
        replayed = [json.loads(frame.data) for frame in wire.parse_sse(whole)[:-1]]
        assert replayed[: len(events)] == events, f"{way}: the client read {events}, the stored stream is {replayed}"
        assert way != "read" or len(replayed) == len(events), f"the stream goes on behind {events[-1]}"

    async def _replayed(self, response_id: str, way: str, thorough: bool) -> bytes:
        """Return the whole stream of a response, after its check."""
        answer = await get(self._running, f"/v1/responses/{response_id}?stream=true")
        assert answer.status == 200, f"{way}: {answer.body!r}"
        frames = wire.parse_sse(answer.body)
        events = [json.loads(frame.data) for frame in frames[:-1]]
        assert frames[-1].data == b"[DONE]", f"{way}: the stream ends with {frames[-1]}"
        terminal = [event["type"] for event in events if event["type"] in TERMINAL]
        assert len(terminal) == 1, f"{way}: terminal events {terminal}"
        assert events[-1]["type"] == terminal[0], f"{way}: {events[-1]['type']} follows {terminal[0]}"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        if thorough:
            wire.check_stream(events)
        self.ends[f"{way} {events[-1]['response']['status']}"] += 1
        return answer.body


async def run(bounds: Bounds, folder: Path, seed: int = 1) -> str:
    """Run that many streams; return the number of each end. Raises AssertionError."""
    chance = random.Random(seed)
    numbers = bounds.numbers()
    model = ScriptedModel(unsteady(chance), n_slots=SLOTS)
    async with served(model, state=folder, queue=CLIENTS, patience=math.inf) as running:
        streams = Streams(running, chance)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(streams.run, numbers)
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()
        assert (running.app.running, running.app.waiting) == (0, 0)
    statuses = Counter(end.rpartition(" ")[2] for end in streams.ends.elements())
    return f"{streams.ends.total()} streams, " + ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))
