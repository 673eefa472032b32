"""HTTP as no good upstream speaks it, on raw sockets: each fault is named, and no request is repeated that may run."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from server.http.sockets import write_available
from server.upstream.transport import Address, ClientTimeouts, UpstreamClient, UpstreamFault
from tests.server.upstream.scripted_upstream import (
    HEAD,
    TIMEOUTS,
    Play,
    delta,
    event,
    fronted,
    plays,
    status,
)
from tests.support.helpers import PATIENCE, post

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STREAM = b"Content-Type: text/event-stream\r\n"
KEY = "sk-of-the-upstream"
SO = b'data: {"choices":[{"delta":{"content":"So"},"finish_reason":"stop"}]}\n\n'
BIG = b"x" * 8_000_000
"""More than the buffers of a socket."""


def closed(head: bytes, body: bytes = SO) -> Play:
    return plays(head + b"\r\n" + body, close=True)


# (name, answer)
READ = [
    ("HTTP/1.0", closed(b"HTTP/1.0 200 OK\r\n" + STREAM)),
    ("no length", closed(b"HTTP/1.1 200 OK\r\n" + STREAM)),
    ("answers before the answer", closed(b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\n" + STREAM)),
    ("thousands of headers", closed(b"HTTP/1.1 200 OK\r\n" + STREAM + b"X: y\r\n" * 4000)),
    ("trailers", plays(HEAD, delta("stop", content="So"), event(b"[DONE]"), b"0\r\nX: y\r\n\r\n")),
]
# (name, answer, end of the message)
REFUSED = [
    (
        "301",
        closed(b"HTTP/1.1 301 M\r\nLocation: https://b/v1\r\n"),
        "redirects to 'https://b/v1' (status 301): use that",
    ),
    ("308", closed(b"HTTP/1.1 308 M\r\nLocation: //b\x1b[31m\r\n"), "redirects to '//b [31m' (status 308): use that"),
    ("204", plays(b"HTTP/1.1 204 N\r\n\r\n", close=True), "answered with status 204"),
    ("gzip", closed(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + STREAM), "it encodes its answer, by gzip or"),
    ("a head of 1 MB", closed(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000), "it sends no HTTP/1.1 (Receive buffer"),
    ("TLS", plays(b"\x15\x03\x01\0\2\2\x46", close=True), "it sends no HTTP/1.1 (it speaks TLS: use an https URL)"),
    ("no stream", plays(OK), "its answer is '' instead of a stream (ok)"),
    (
        "lines",
        status(500, b'{"error":{"message":"no\\nFAKE \\u001b[31m\\u0000"}}'),
        "answered with status 500: no FAKE [31m",
    ),
    ("the key", status(500, f"Bearer {KEY}".encode()), "answered with status 500: Bearer [key]"),
    ("the key in a stream", plays(HEAD, event({"error": f"{KEY}?"}), close=True), "answered with status 500: [key]?"),
]


@pytest.mark.parametrize("play", [pytest.param(play, id=name) for name, play in READ])
async def test_answer_is_read(play: Play) -> None:
    async with fronted(play) as front:
        assert (await post(front, model="m", input="Hi")).text == "So"


@pytest.mark.parametrize(("play", "cause"), [pytest.param(play, cause, id=name) for name, play, cause in REFUSED])
async def test_fault_is_named_in_one_line(play: Play, cause: str, caplog: pytest.LogCaptureFixture) -> None:
    async with fronted(play, key=KEY) as front:
        message = (await post(front, model="m", input="Hi")).json["error"]["message"]
    assert cause in message
    assert KEY not in caplog.text
    assert [record.levelno for record in caplog.records if not record.getMessage().isprintable()] == []
    assert max(record.levelno for record in caplog.records) == logging.WARNING


@asynccontextmanager
async def upstream(
    serve: Callable[[trio.SocketStream], Awaitable[None]], timeouts: ClientTimeouts = TIMEOUTS
) -> AsyncIterator[UpstreamClient]:
    """A server of raw connections, and a client of it."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        client = UpstreamClient(Address.of(f"http://127.0.0.1:{listener.socket.getsockname()[1]}"), timeouts)
        with trio.fail_after(PATIENCE):
            yield client
        await client.close_idle()
        nursery.cancel_scope.cancel()


async def asked(client: UpstreamClient, body: bytes = b"") -> bytes | str:
    """Return the body of the answer, or the kind of the fault."""
    try:
        async with client.request("POST", "/v1/x", body) as answer:
            return await answer.read(100)
    except UpstreamFault as fault:
        return fault.kind


async def test_answer_of_many_tiny_parts_leaves_turns_to_other_tasks() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(HEAD + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n")
        await trio.sleep_forever()

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with upstream(serve) as client, client.request("POST", "/v1/x") as answer, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert len(await answer.read(2000)) == 2000
        nursery.cancel_scope.cancel()
    assert turns >= 20


@pytest.mark.parametrize("closes", [True, False])
async def test_answer_before_the_whole_request_is_read_is_the_answer(closes: bool) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        if not closes:
            await trio.sleep_forever()

    async with upstream(serve) as client:
        assert await asked(client, BIG) == "http_413"


async def test_long_request_is_sent_while_the_answer_is_awaited() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        count = 0
        while count < 2 * len(BIG):
            count += len(await stream.receive_some(1 << 20))
            if count > len(BIG):
                await stream.send_all(OK)
                count = count - len(BIG) - 200

    async with upstream(serve) as client:
        assert [await asked(client, BIG) for _ in range(2)] == [b"ok", b"ok"]


@pytest.mark.parametrize(
    ("second", "answer", "requests"),
    [(b"", b"ok", 3), (b"HTTP/1.1 2", "cut", 2), (b"x", "cut", 2), (b"no HTTP\r\n\r\n", "protocol", 2)],
)
async def test_request_is_repeated_once_and_only_if_no_answer_has_begun(
    second: bytes, answer: bytes | str, requests: int
) -> None:
    """The second request on a connection, which the upstream closes as it arrives."""
    count = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal count
        for reply in (OK, second):
            if not await stream.receive_some():
                return
            count += 1
            await stream.send_all(reply)

    async with upstream(serve) as client:
        assert [await asked(client), await asked(client)] == [b"ok", answer]
    assert count == requests


async def test_bytes_behind_an_answer_are_no_answer_to_the_next_request() -> None:
    """A second answer, by a fault of a proxy, may be that to another client."""
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        while await stream.receive_some():
            await stream.send_all(OK + OK.replace(b"ok", b"no"))

    async with upstream(serve) as client:
        assert [await asked(client), await asked(client)] == [b"ok", b"ok"]
    assert connections == 2


@pytest.mark.slow
async def test_large_request_that_is_answered_and_not_read_ends_at_the_deadline() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(HEAD)
        await trio.sleep_forever()

    with trio.fail_after(5):
        async with upstream(serve, ClientTimeouts(connect=5, first_byte=0.2, idle=5)) as client:
            assert await asked(client, bytes(30 << 20)) == "timeout"


@pytest.mark.slow
async def test_status_counts_without_its_body() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 429 Busy\r\nContent-Length: 9\r\n\r\n")
        await trio.sleep_forever()

    async with upstream(serve, ClientTimeouts(connect=5, first_byte=5, idle=0.05)) as client:
        assert await asked(client) == "http_429"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        (b"Retry-After: 7", 7),
        (b"Date: Wed, 01 Jan 2200 00:00:00 GMT\r\nRetry-After: Wed, 01 Jan 2200 00:00:07 GMT", 7),
        (b"Date: Wed, 01 Jan 2200 00:00:00 GMT\r\nRetry-After: Wed, 01 Jan 2100 00:00:07 GMT", 0),
        (b"Retry-After: Wed, 01 Jan 2020 00:00:00 +99999999999999999999", 1),
        (b"Date: nonsense\r\nRetry-After: Wed, 01 Jan 2020 00:00:00 GMT", 0),
    ],
)
async def test_date_to_wait_for_is_one_of_the_upstreams_clock(headers: bytes, wait: float) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n" + headers + b"\r\n\r\n")

    async with upstream(serve, ClientTimeouts(connect=5, first_byte=5, idle=5, busy=1)) as client:
        with pytest.raises(UpstreamFault) as caught:
            async with client.request("GET", "/"):
                pass
    assert (caught.value.kind, caught.value.wait) == ("http_503", wait)


class SeveralAddresses(trio.abc.HostnameResolver):
    """Finds three addresses for each name: one refuses connections, one does not answer, and one is right."""

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        stream = (trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "")
        return [(*stream, place) for place in (("127.0.0.1", 1), ("10.255.255.1", port), ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_name_with_dead_addresses_is_reached_at_another() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(OK)

    async with upstream(serve) as client:
        client.address = replace(client.address, host="several.example")
        before = trio.socket.set_custom_hostname_resolver(SeveralAddresses())
        try:
            assert await asked(client) == b"ok"
        finally:
            trio.socket.set_custom_hostname_resolver(before)


@pytest.mark.slow
async def test_pause_of_the_reader_is_no_silence_of_the_upstream() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(OK[:-1])
        await trio.sleep(0.1)
        await stream.send_all(OK[-1:])

    timeouts = ClientTimeouts(connect=5, first_byte=5, idle=0.15)
    async with upstream(serve, timeouts) as client, client.request("GET", "/") as answer:
        parts = [await answer.data()]
        await trio.sleep(0.3)
        parts.append(await answer.data())
    assert b"".join(parts) == b"ok"


@pytest.mark.slow
async def test_bytes_that_came_while_this_process_stood_still_are_no_silence() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
        await trio.sleep(0.05)
        assert write_available(stream.socket, b"b") == 1
        time.sleep(0.3)  # noqa: ASYNC251  # past the deadline, before the client has a turn
        await trio.sleep(0.05)
        await stream.send_all(b"c")

    parts = []
    timeouts = ClientTimeouts(connect=5, first_byte=5, idle=0.2)
    async with upstream(serve, timeouts) as client, client.request("GET", "/") as answer:
        while part := await answer.data():
            await trio.lowlevel.checkpoint()
            parts.append(part)
    assert parts == [b"a", b"b", b"c"]


@pytest.mark.slow
async def test_silence_after_the_head_has_the_time_that_was_waited() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(OK.removesuffix(b"ok"))
        await trio.sleep_forever()

    async with upstream(serve, ClientTimeouts(connect=5, first_byte=0.05, idle=5)) as client:
        with pytest.raises(UpstreamFault, match=r"has not begun to answer for 0\.05 s"):
            async with client.request("GET", "/") as answer:
                await answer.data()
