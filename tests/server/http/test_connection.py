"""HTTP/1.1 over real sockets: accepted and refused requests, and that no input ends the server."""

import contextlib
import itertools
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.http import drain
from server.http.connection import DEFAULT_OPTIONS, Application, Connection
from server.http.drain import Drain
from server.http.exchange import Receive, Scope, Send
from server.listening.options import HTTPLimits, HTTPOptions
from tests.support.helpers import Client, Running, encode, request, served

GET = request("GET", "/health")
HEALTHY = b'{"status":"ok"}'
CHUNKED = request("POST", "/v1/responses", None, "Transfer-Encoding: chunked")


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1")


async def answers(running: Running, sent: bytes) -> tuple[list[int], bool]:
    """Return the statuses of the responses, and True if the server then closes."""
    statuses: list[int] = []
    closed = False

    async def read(client: Client) -> None:
        nonlocal closed
        try:
            while True:
                statuses.append((await client.answer("HEAD" if sent.startswith(b"HEAD") else "GET")).status)
        except AssertionError:
            closed = True

    async with await Client.to(running) as client, trio.open_nursery() as nursery:
        await client.send(sent)
        nursery.start_soon(read, client)
        await trio.testing.wait_all_tasks_blocked(0.02)  # neither side has anything left to do
        nursery.cancel_scope.cancel()
    return statuses, closed


OPEN, CLOSED = False, True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "found"),
    [
        pytest.param(GET, ([200], OPEN), id="one"),
        pytest.param(GET * 3, ([200, 200, 200], OPEN), id="three at once"),
        pytest.param(request("GET", "/health", None, "Connection: close") + GET, ([200], CLOSED), id="the last one"),
        pytest.param(request("HEAD", "/health"), ([200], OPEN), id="head"),
        pytest.param(head("GET /health HTTP/1.0"), ([200], CLOSED), id="1.0"),
        pytest.param(head("GET /health HTTP/1.2", "Host: localhost"), ([200], OPEN), id="1.2"),
        pytest.param(head("GET http://localhost/health HTTP/1.1", "Host: localhost"), ([200], OPEN), id="absolute"),
        pytest.param(head("GET http://localhost?/nothing HTTP/1.1", "Host: localhost"), ([200], OPEN), id="query only"),
        pytest.param(head("GET /health HTTP/1.1"), ([400], CLOSED), id="no host"),
        pytest.param(head("GET /health HTTP/2.0", "Host: localhost"), ([505], CLOSED), id="2.0"),
        pytest.param(head("HEAD /health HTTP/9.9", "Host: localhost"), ([505], CLOSED), id="9.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ([505], CLOSED), id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", ([400], CLOSED), id="TLS"),
        pytest.param(b"\r\n\r\n", ([400], CLOSED), id="nothing"),
        pytest.param(
            request("GET", "/health", None, "Authorization: Bearer a", "authorization: Bearer b"),
            ([400], CLOSED),
            id="two keys",
        ),
        pytest.param(request("GET", "/health", None, "X: a", "X: b"), ([200], OPEN), id="a header twice"),
        pytest.param(
            head("GET /health HTTP/1.1", "Host: localhost", "x" * 70_000), ([431], CLOSED), id="too long a head"
        ),
        pytest.param(request("POST", "/v1/responses", None, "Content-Length: -1"), ([400], CLOSED), id="length -1"),
        pytest.param(
            request("POST", "/v1/responses", None, "Transfer-Encoding: gzip"), ([501], CLOSED), id="gzip transfer"
        ),
        pytest.param(
            request("POST", "/v1/responses", b"0\r\n\r\n", "Transfer-Encoding: chunked"), ([400], CLOSED), id="both"
        ),
        pytest.param(
            request("POST", "/v1/responses", None, "Transfer-Encoding: chunked") + b"zz\r\n",
            ([400], CLOSED),
            id="chunk",
        ),
        pytest.param(CHUNKED + b"0\r\n\n" + GET, ([400], CLOSED), id="LF for no trailers"),
        pytest.param(CHUNKED + b"0\r\nx: y\n\n" + GET, ([400], CLOSED), id="LF after trailers"),
        pytest.param(CHUNKED + b"0\r\nx: y\n\r\n" + GET, ([400], CLOSED), id="LF after a trailer"),
        # Each of these ended hypercorn's own connections, and the process with them.
        pytest.param(request("GET", "/health", None, "Connection: \xff, upgrade"), ([200], OPEN), id="Connection"),
        pytest.param(
            request("GET", "/health", None, "Upgrade: h2c", "HTTP2-Settings: AAA"), ([200], OPEN), id="settings"
        ),
        pytest.param(
            request("GET", "/health", None, "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Protocol: \xff")
            + b"x" * 9,
            ([200], OPEN),
            id="websocket",
        ),
        pytest.param(
            request("GET", "/health", None, "Transfer-Encoding: chunked") + b"zz\r\n", ([200], CLOSED), id="answered"
        ),
    ],
)
async def test_connection_with_any_request_answers_and_stays_open_or_closes(
    sent: bytes, found: tuple[list[int], bool], caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as running:
        assert await answers(running, sent) == found
        assert await answers(running, GET) == ([200], OPEN)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


BLANKS = b" " * 60_000


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /health HTTP/1.1\nHost: test\nx:" + BLANKS + b"\0\n\n", id="header"),
        pytest.param(CHUNKED + b"1;" + BLANKS + b"\n\r\n", id="extension"),
        pytest.param(CHUNKED + b"0\r\nx:" + BLANKS + b"\0\r\n\r\n", id="trailer"),
    ],
)
async def test_connection_with_a_long_line_does_not_block_the_event_loop(sent: bytes) -> None:
    """With h11's own patterns 10, 3 and 10 s."""
    async with served() as running:
        began = time.perf_counter()
        await answers(running, sent)
        assert time.perf_counter() - began < 2


async def test_invalid_request_gets_an_error_with_the_reason() -> None:
    async with served() as running, await Client.to(running) as client:
        await client.send(head("GET / HTTP/1.1"))
        answer = await client.answer()
        assert answer.json["error"] == {
            "message": "The request is not valid HTTP/1.1: Missing mandatory Host: header.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        assert answer.headers["connection"] == "close"


async def test_error_of_too_large_a_head_names_the_setting() -> None:
    async with served() as running, await Client.to(running) as client:
        await client.send(head("GET / HTTP/1.1", "Host: localhost", "x: " + "y" * 70_000))
        answer = await client.answer()
    assert "--max-header-kilobytes" in answer.json["error"]["message"]


async def test_invalid_request_is_logged_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with served() as running:
        sent = head("GET /health HTTP/1.1", "Host: localhost", "Authorization : Bearer sk-secret")
        assert await answers(running, sent) == ([400], CLOSED)
    assert "unreadable request from 127.0.0.1: 'illegal header line'" in caplog.messages
    assert "secret" not in caplog.text


async def test_garbage_after_a_head_request_gets_an_error_with_a_body() -> None:
    async with served() as running, await Client.to(running) as client:
        await client.send(request("HEAD", "/health") + b"\0\r\n\r\n")
        assert (await client.answer("HEAD")).status == 200
        assert (await client.answer()).json["error"]["type"] == "invalid_request_error"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo the body in one piece, or in chunks of three bytes if the path asks for them."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    answer = f"{scope['method']} {scope['path']} {len(body)} ".encode() + body
    streamed = scope["path"] == "/stream"
    length = [] if streamed else [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    for begin in range(0, len(answer), 3) if streamed else ():
        await send({"type": "http.response.body", "body": answer[begin : begin + 3], "more_body": True})
    await send({"type": "http.response.body", "body": b"" if streamed else answer, "more_body": False})


@asynccontextmanager
async def connected(
    app: Application = echo, drain: Drain | None = None, options: HTTPOptions = DEFAULT_OPTIONS
) -> AsyncIterator[trio.SocketStream]:
    """Yield the client's end of a loopback connection; close the server's end as the listener does."""

    async def converse(stream: trio.SocketStream) -> None:
        try:
            await Connection(app, stream, drain or Drain(), options).run()
        finally:
            await trio.aclose_forcefully(stream)

    listener = socket.create_server(("127.0.0.1", 0))
    client = await trio.open_tcp_stream(*listener.getsockname())
    accepted = trio.SocketStream(trio.socket.from_stdlib_socket(listener.accept()[0]))
    listener.close()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, accepted)
            async with client:
                yield client


async def everything(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    try:
        while data := await stream.receive_some():
            received += data
    except trio.BrokenResourceError:
        pass
    return bytes(received)


REQUESTS = (
    request("POST", "/one", b"\n{\n\n}")
    + request("POST", "/stream", None, "Transfer-Encoding: chunked")
    + b"3\r\nsec\r\n1;ext=1\r\no\r\n2\r\nnd\r\n0\r\ntrailer: 1\r\n\r\n"
    + request("GET", "/last", None, "Connection: close")
)
ANSWERS = [b"POST /one 5 \n{\n\n}", b"POST /stream 6 second", b"GET /last 0 "]


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.integers(1, len(REQUESTS) - 1), max_size=12))
@example([REQUESTS.index(b"\r\n\r\n") + 2])
@example([REQUESTS.index(b"\r\n\r\n") + 3])
def test_requests_cut_anywhere_get_the_same_responses(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(REQUESTS)]

    async def play() -> list[bytes]:
        async with connected() as stream:
            client = Client(stream)
            for begin, end in itertools.pairwise(bounds):
                await client.send(REQUESTS[begin:end])
                await trio.testing.wait_all_tasks_blocked()
            found = [(await client.answer()).body for _ in ANSWERS]
            assert await client.rest() == b""
            return found

    assert trio.run(play) == ANSWERS


@pytest.mark.slow
@settings(max_examples=2 * settings().max_examples)  # 200 in .ci/run
@given(st.data())
def test_connection_with_random_bytes_ends_only_itself(data: st.DataObject) -> None:
    """Change, remove and insert bytes of requests: `run` returns, and the application receives whole requests."""
    sent = bytearray(REQUESTS)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(sent) - 1))
        sent[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    failures: list[BaseException] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await echo(scope, receive, send)
        except Exception as error:
            failures.append(error)
            raise

    async def play() -> bytes:
        async with connected(watched) as stream:
            try:
                await stream.send_all(sent)
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass
            return await everything(stream)

    received = trio.run(play)
    assert failures == []
    assert received == b"" or received.startswith(b"HTTP/1.1 ")


async def test_frame_leaves_without_a_turn_of_the_event_loop() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Mapping[str, Any]] = [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"first", "more_body": True},
            {"type": "http.response.body", "body": b"second", "more_body": True},
        ]
        for message in messages:
            with pytest.raises(StopIteration):
                send(message).__await__().send(None)
            await trio.testing.wait_all_tasks_blocked(0.01)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with connected(app) as stream:
        await stream.send_all(GET)
        first = await stream.receive_some()
        assert first.startswith(b"HTTP/1.1 200 ")
        assert first.endswith(b"\r\n\r\n5\r\nfirst\r\n")
        assert await stream.receive_some() == b"6\r\nsecond\r\n"
        assert await stream.receive_some() == b"0\r\n\r\n"


@pytest.mark.slow
async def test_frames_beyond_the_kernel_buffer_arrive_in_order() -> None:
    frames = [bytes([65 + n]) * size for n, size in enumerate((5, 9_000_000, 7, 1_000_000, 9))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with connected(app) as stream:
        await stream.send_all(GET)
        await trio.sleep(0.1)
        client = Client(stream)
        assert (await client.answer()).chunks == frames


async def events_after(then: bytes, *, reset: bool) -> list[str]:
    """Return the messages to an application that waits after its request while the client sends more and leaves."""
    messages = []
    waits = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append((await receive())["type"])
        waits.set()
        messages.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"to nobody", "more_body": True})

    async with connected(app) as stream:
        await stream.send_all(GET)
        await waits.wait()
        await stream.send_all(then)
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return messages


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("then", [b"", b"x", GET])
async def test_waiting_task_notices_the_disconnect_after_any_input(then: bytes, reset: bool) -> None:
    assert await events_after(then, reset=reset) == ["http.request", "http.disconnect"]


async def test_disconnect_behind_much_input_is_noticed_by_the_next_frame() -> None:
    hung_up = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch() -> None:
            await receive()
            hung_up.set()

        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            while not hung_up.is_set():
                await send({"type": "http.response.body", "body": b"frame", "more_body": True})
                await trio.sleep(0.01)

    async with connected(app) as stream:
        await stream.send_all(GET + b"x" * 150_000)
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.slow
async def test_connection_reads_ahead_a_bounded_number_of_bytes() -> None:
    """Input that a client sends without an end stays in the socket."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with trio.move_on_after(0.1) as waiting:
            await receive()
        assert waiting.cancelled_caught, "it has not hung up"

    sent = 0
    async with connected(app) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(GET * 1000)
                sent += 1
    assert sent * len(GET) * 1000 < 50_000_000  # the buffers of two kernels


async def test_100_continue_is_sent_when_the_body_is_read(autojump_clock: trio.testing.MockClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wanted":
            return await echo(scope, receive, send)
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None

    expecting = "Content-Length: 3", "Expect: 100-continue"
    async with connected(app) as stream:
        client = Client(stream)
        await client.request("POST", "/wanted", None, *expecting)
        assert (await client.head()).status == 100
        await client.send(b"abc")
        assert (await client.answer()).body == b"POST /wanted 3 abc"
        await client.request("POST", "/not", None, *expecting)
        assert (await client.head()).status == 413
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "begun", [CHUNKED + b"zz\r\n", CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
)
async def test_client_refused_while_sending_can_read_the_error(begun: bytes) -> None:
    async with served() as running, await Client.to(running) as client:
        await client.send(begun)
        for _ in range(20):
            await client.send(b"x" * 10_000)
            await trio.sleep(0.001)
        assert (await client.answer()).status in (400, 505)


async def test_100_continue_is_not_sent_for_a_body_that_is_too_large() -> None:
    async with served(max_body_megabytes=0.001) as running, await Client.to(running) as client:
        await client.request("POST", "/v1/responses", None, "Content-Length: 1001", "Expect: 100-continue")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", GET[:-2], GET + b"\r\n", GET + GET[:-2]])
async def test_connection_without_its_next_request_closes_in_time(sent: bytes) -> None:
    options = HTTPOptions(HTTPLimits(idle_seconds=0.05))
    async with connected(options=options) as stream:
        await stream.send_all(sent)
        assert (await everything(stream)).count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("head_", "status"),
    [
        (head("GET / HTTP/1.1", "Host: localhost", f"x: {'y' * 900}"), b"200"),
        (head("GET / HTTP/1.1", "Host: localhost", f"x: {'y' * 1000}"), b"431"),
        (head(f"GET /{'y' * 1000} HTTP/1.1", "Host: localhost"), b"431"),
        (head("GET / HTTP/1.1", "Host: localhost", *["a: b"] * 10_000), b"431"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 2000, b"431"),
    ],
)
async def test_head_beyond_its_limit_gets_431(head_: bytes, status: bytes) -> None:
    async with connected(options=HTTPOptions(HTTPLimits(header_bytes=1000))) as stream:
        await stream.send_all(head_)
        await stream.send_eof()
        assert (await everything(stream))[9:12] == status


async def test_drain_closes_idle_connections_and_finishes_responses() -> None:
    drain = Drain()
    asked, goes_on = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await goes_on.wait()
        await echo(scope, receive, send)

    async with connected(echo, drain) as waiting, connected(app, drain) as busy:
        await waiting.send_all(GET)
        await waiting.receive_some()
        await busy.send_all(GET)
        await asked.wait()
        drain.close()
        assert await everything(waiting) == b""
        goes_on.set()
        answer = await everything(busy)
        assert b"\r\nconnection: close\r\n" in answer.lower()


@pytest.mark.slow
async def test_drain_waits_for_the_first_request_of_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client knows of no earlier request, and expects an answer."""
    monkeypatch.setattr(drain, "FIRST_SECONDS", 0.1)
    closing = Drain()
    async with connected(echo, closing) as early, connected(echo, closing) as silent, trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        closing.close()
        nursery.start_soon(closing.wait_first_requests)
        async with connected(echo, closing) as late:
            for stream in (early, late):
                await stream.send_all(GET)
                assert b"\r\nconnection: close\r\n" in (await everything(stream)).lower()
        assert await everything(silent) == b""


async def test_application_error_closes_its_connection_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async with connected(app) as stream:
        await stream.send_all(GET)
        assert await everything(stream) == b""
    assert [record.message for record in caplog.records] == ["a connection failed by an internal error"]


@pytest.mark.slow
async def test_hundreds_of_dropped_connections_leave_no_task() -> None:
    async with served() as running:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(30):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(answers_quickly, running)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert trio.lowlevel.current_statistics().tasks_living == before


async def answers_quickly(running: Running) -> None:
    async with await Client.to(running) as client:
        await client.send(request("POST", "/v1/responses", encode(input="Hi", stream=True)))
        await client.head()
