"""Writes that don't wait, over a real pair of sockets."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData

from server.connection import Connection


class Protocol:
    """What hypercorn would tell of a client that is gone."""

    def __init__(self) -> None:
        self.told: list[Event] = []

    async def handle(self, event: Event) -> None:
        self.told.append(event)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Protocol, trio.SocketStream]]:
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    nothing: Any = None
    stream: Any = ours
    connection = Connection(nothing, Config(), nothing, nothing, stream)
    connection.protocol = protocol = Protocol()  # type: ignore[assignment]
    async with ours, theirs:
        yield connection, protocol, theirs


async def test_a_frame_leaves_without_a_turn_of_the_event_loop() -> None:
    async with connected() as (connection, _, client):
        with pytest.raises(StopIteration):
            connection.protocol_send(RawData(b"frame")).send(None)
        assert await client.receive_some() == b"frame"


async def test_what_the_kernel_does_not_take_at_once_comes_in_its_order() -> None:
    frames = [bytes([65 + n]) * size for n, size in enumerate((5, 3_000_000, 7, 1_000_000, 0, 9))]
    async with connected() as (connection, protocol, client), trio.open_nursery() as nursery:
        for frame in frames:
            nursery.start_soon(connection.protocol_send, RawData(frame))
            await trio.testing.wait_all_tasks_blocked()
        received = bytearray()
        while len(received) < sum(map(len, frames)):
            received += await client.receive_some()
        assert received == b"".join(frames)
        assert protocol.told == []


async def test_a_client_that_is_gone_is_told_as_hypercorn_does() -> None:
    async with connected() as (connection, protocol, client):
        await client.aclose()
        await connection.protocol_send(RawData(b"frame"))
        assert protocol.told == [Closed()]
