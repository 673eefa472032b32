"""A client that hangs up ends the request to the upstream in each of its states."""

import itertools
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from server.upstream.transport import Address, ClientTimeouts, UpstreamClient
from tests.server.upstream.scripted_upstream import HEAD, Fronted, Play, fronted, plays, says, status
from tests.support.helpers import PATIENCE, Client

LIMIT = 1.0
"""Seconds; 0.001 to 0.003 on a quiet machine."""
LONG = ClientTimeouts(connect=PATIENCE, first_byte=PATIENCE, idle=PATIENCE)


@asynccontextmanager
async def answering(play: Play) -> AsyncIterator[Fronted]:
    async with fronted(play, n_slots=1) as front:
        yield front


@asynccontextmanager
async def silent(scheme: str) -> AsyncIterator[Fronted]:
    """A front before a listener that accepts nothing: connections wait in its queue, or beside it if that is full."""
    with trio.socket.socket() as listener, trio.socket.socket() as first, trio.socket.socket() as second:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        place = listener.getsockname()
        if scheme == "http":
            await first.connect(place)
            with trio.move_on_after(0.01):
                await second.connect(place)
        async with fronted(says("-"), n_slots=1) as front:
            address = Address.of(f"{scheme}://127.0.0.1:{place[1]}")
            front.generator.replicas[0].client = UpstreamClient(address, LONG)
            yield front


STATES = {
    "connecting": lambda: silent("http"),
    "TLS handshake": lambda: silent("https"),
    "waiting for the head": lambda: answering(plays(math.inf)),
    "waiting for the first event": lambda: answering(plays(HEAD, math.inf)),
    "waiting for another attempt": lambda: answering(status(503, b"{}", "Retry-After: 9")),
}


async def until(done: Callable[[], bool]) -> None:
    for _ in itertools.count():
        if done():
            return
        await trio.sleep(0.002)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("state", STATES)
async def test_hang_up_ends_the_request_at_once(state: str, stream: bool) -> None:
    async with STATES[state]() as front, await Client.to(front) as client:
        (replica,) = front.generator.replicas
        await client.create(model="m", input="Hi", stream=stream)
        await until(front.generator.full)
        if "waiting" in state:
            await until(lambda: len(front.asked) == 1)
        await until(lambda: replica.running == ("attempt" not in state))
        await client.leave()
        with trio.fail_after(LIMIT):
            await until(lambda: not front.generator.full() and not replica.running)
