"""Tests of the functions over sockets."""

import pytest
import trio

from server.http.sockets import read_some


async def test_reading_from_a_closed_socket_raises_closed_resource_error() -> None:
    ours, theirs = trio.socket.socketpair()
    with theirs:
        ours.close()
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await read_some(ours, 10)


async def test_reading_waits_for_bytes_and_returns_none_at_the_end() -> None:
    ours, theirs = trio.socket.socketpair()
    found = []

    async def read() -> None:
        while data := await read_some(ours, 3):
            found.append(data)

    with ours:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with theirs:
                await theirs.send(b"abcde")
    assert found == [b"abc", b"de"]
