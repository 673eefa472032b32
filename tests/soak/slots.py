"""Promise: a client that hangs up frees its slot within one decode step, also while its prompt is evaluated.

The model waits in a step while the client leaves, and goes on as soon as all tasks are blocked, so the number of steps
that follow doesn't depend on the machine.
"""

import math
import random
import time
from pathlib import Path

import numpy as np
import trio
import trio.testing

from tests.server.api.connections.test_hang_ups import KINDS, LEAVER, WAYS, body, evaluated, repeated
from tests.soak.bounds import Bounds
from tests.support.helpers import PATIENCE, Client, PacedModel, Running, post, served
from tests.support.websockets import SocketClient

PROMPT_CHARACTERS = 1500
"""Characters of a prompt at most: three batches of tokens."""
DECODES = 12
"""Decodes at most before a client leaves."""
SETTLED_SECONDS = 0.002
"""Seconds without a turn of the event loop, after which the server has noticed the hang-up, or never will by itself."""
SOCKET = "WebSocket"


class HangUps:
    """Clients of a server with one slot, which leave one after the other."""

    def __init__(self, running: Running, model: PacedModel, chance: random.Random) -> None:
        self._running = running
        self._model = model
        self._chance = chance
        self.freed: list[float] = []
        """Seconds until the slot of each client is free."""
        self.steps = 0
        """Decodes for a client after it has left, at most: the one that was running."""

    async def hang_up(self) -> None:
        kind, way = self._chance.choice([*KINDS, SOCKET]), self._chance.choice(list(WAYS))
        characters, decodes = self._chance.randrange(1, PROMPT_CHARACTERS), self._chance.randrange(DECODES)
        self._model.decoded.clear()
        self._model.hold()
        async with await self._request(kind, characters) as client:
            self._model.allow(decodes)
            await self._model.wait_begun(decodes + 1)
            left = time.perf_counter()
            await WAYS[way](client)
            await trio.testing.wait_all_tasks_blocked(SETTLED_SECONDS)
            self._model.go()
            await self._running.app.wait_idle()
            self.freed.append(time.perf_counter() - left)
            assert (await post(self._running, input="b", store=False)).text == "b"
        steps = evaluated(self._model) - decodes
        assert steps <= 1, f"{kind}, {way} after {decodes} decodes: {steps} more"
        self.steps = max(self.steps, steps)

    async def _request(self, kind: str, characters: int) -> Client:
        """Send a request, and return the connection that it runs on."""
        if kind == SOCKET:
            socket = await SocketClient.to(self._running)
            await socket.create(input=LEAVER * characters)
            return socket.http
        client = await Client.to(self._running)
        path, fields = KINDS[kind]
        await client.request("POST", path, body(path, fields, characters))
        return client


async def run(bounds: Bounds, folder: Path, seed: int = 1) -> str:
    """Let that many clients hang up; return how many steps and how long it took. Raises AssertionError."""
    model = PacedModel(repeated, n_slots=1, batched=bool(seed % 2))
    async with served(model, state=folder, cache_bytes=0, patience=math.inf) as running:
        hang_ups = HangUps(running, model, random.Random(seed))
        for _ in bounds.numbers():
            with trio.fail_after(PATIENCE):
                await hang_ups.hang_up()
    p99 = np.percentile(hang_ups.freed, 99) * 1000
    return f"{len(hang_ups.freed)} hang-ups, {hang_ups.steps} decode step at most, free after {p99:.1f} ms (p99)"
