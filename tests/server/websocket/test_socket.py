"""Frames of RFC 6455 over real sockets: what is read, what closes the connection and with which code.

After each case another client is answered, all connections are gone, and no memory for messages is occupied.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from engine.backends.scripted import ScriptedModel
from server.websocket import WebSocketLimits
from server.websocket.socket import CLOSE_SECONDS
from tests.support.certificates import certificate, tls_client
from tests.support.helpers import NAME, PATIENCE, PacedModel, Running, encode, post, served, text
from tests.support.websockets import SocketClient, frame, handshake

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x01\x02\x03\x04"
CREATE = encode(type="response.create", input="Hi.")
LIMIT = 5000
"""Bytes of a message."""


@asynccontextmanager
async def connected(
    model: ScriptedModel | None = None, limits: WebSocketLimits | None = None, **config: Any
) -> AsyncIterator[tuple[Running, SocketClient]]:
    """A server and a client; at the end, the server has no trace of the client and answers another one."""
    async with served(model, **config) as running:
        if limits is not None:
            running.app.websockets.limits = limits
        async with await SocketClient.to(running) as client:
            yield running, client
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()
        assert running.app._services.bodies._occupied == 0
        assert (await post(running, input="Well?")).status == 200


def cut(data: bytes, size: int, between: bytes = b"") -> bytes:
    """The message in fragments, with other frames between them."""
    parts = [data[begin : begin + size] for begin in range(0, len(data), size)]
    frames = [
        frame(CONTINUATION if index else TEXT, part, fin=index == len(parts) - 1, mask=MASK)
        for index, part in enumerate(parts)
    ]
    return between.join(frames)


READ: dict[str, bytes] = {
    "one frame": frame(TEXT, CREATE, mask=MASK),
    "a mask of zeros": frame(TEXT, CREATE),
    "fragments": cut(CREATE, 10),
    "bytes": cut(CREATE, 1),
    "an empty first fragment": frame(TEXT, b"", fin=False) + frame(CONTINUATION, CREATE),
    "an empty last fragment": frame(TEXT, CREATE, fin=False) + frame(CONTINUATION, b""),
    "pings between fragments": cut(CREATE, 20, frame(PING, b"?") + frame(PONG, b"!")),
    "a pong that nobody asked for": frame(PONG, b"x" * 125) + frame(TEXT, CREATE),
    "a cut character": cut(CREATE[:-1] + ', "user": "\u00e4\u20ac"}'.encode(), 2),
    "a byte order mark": frame(TEXT, b"\xef\xbb\xbf" + CREATE),
    "a long frame": frame(TEXT, CREATE + b" " * 200),
    "a message of the whole limit": frame(TEXT, CREATE.ljust(LIMIT)),
}


@pytest.mark.parametrize("case", READ)
async def test_message_in_any_frames_is_read(case: str) -> None:
    async with connected(max_body_megabytes=LIMIT / 1e6) as (_, client):
        await client.http.send(READ[case])
        assert text((await client.stream())[-1]["response"]) == "Hi."


async def test_message_in_single_bytes_on_the_wire_is_read() -> None:
    async with connected() as (_, client):
        for byte in cut(CREATE, 30):
            await client.http.send(bytes([byte]))
        assert text((await client.stream())[-1]["response"]) == "Hi."


BROKEN: dict[str, tuple[bytes, int]] = {
    "no mask": (frame(TEXT, CREATE, mask=None), 1002),
    "no mask on a ping": (frame(PING, mask=None), 1002),
    "reserved bit": (frame(TEXT, CREATE, rsv=4), 1002),
    "compressed frame": (frame(TEXT, CREATE, rsv=4), 1002),
    "reserved opcode": (frame(3, CREATE), 1002),
    "reserved control opcode": (frame(11), 1002),
    "continuation of nothing": (frame(CONTINUATION, CREATE), 1002),
    "two messages at once": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
    "fragmented ping": (frame(PING, b"?", fin=False), 1002),
    "long ping": (frame(PING, b"?" * 126), 1002),
    "long length of a short frame": (b"\x81\xfe\x00\x01\0\0\0\0x", 1002),
    "negative length": (b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", 1002),
    "binary message": (frame(BINARY, CREATE), 1003),
    "binary fragment": (frame(BINARY, b"", fin=False), 1003),
    "bad UTF-8": (frame(TEXT, b'{"type": "\xff"}'), 1007),
    "bad UTF-8 over two frames": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007),
    "cut UTF-8": (frame(TEXT, b"\xe2\x82"), 1007),
    "surrogate in UTF-8": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "long message": (frame(TEXT, b"x" * (LIMIT + 1)), 1009),
    "length of a terabyte": (b"\x81\xff" + (1 << 40).to_bytes(8, "big") + bytes(4) + bytes(LIMIT + 1), 1009),
    "long message in fragments": (cut(b"x" * (LIMIT + 1), 1000), 1009),
    "endless empty fragments": (frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * LIMIT, 1009),
    "flood of pings": (frame(PING, b"?") * 1000, 1008),
    "close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "close with a reserved code": (frame(CLOSE, (1006).to_bytes(2, "big")), 1002),
    "close with an unknown code": (frame(CLOSE, (999).to_bytes(2, "big")), 1002),
    "close with bad UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_frame_closes_with_its_code(case: str) -> None:
    sent, code = BROKEN[case]
    async with connected(max_body_megabytes=LIMIT / 1e6) as (_, client):
        await client.http.send(sent)
        assert (await client.closed())[0] == code


@pytest.mark.parametrize(
    ("code", "reason"), [(CloseReason.NO_STATUS_RCVD, None), (1000, None), (1001, "bye"), (4321, "application")]
)
async def test_close_is_answered_with_its_code(code: int, reason: str | None) -> None:
    async with connected() as (_, client):
        await client.send(CloseConnection(code, reason))
        assert await client.closed() == (code, "")


@pytest.mark.slow
async def test_ping_is_answered_while_a_response_streams() -> None:
    async with connected(PacedModel(lambda message: b"word " * 20)) as (running, client):
        assert isinstance(running.model, PacedModel)
        running.model.hold()
        await client.create(input="Go.")
        await client.until("response.in_progress")
        for payload in (b"", b"payload", bytes(125)):
            await client.send(Ping(payload))
            running.model.allow(3)
            while payload not in client.pongs:
                await client.event()
        running.model.go()
        assert text((await client.until("response.completed"))[-1]["response"]) == "word " * 20


@pytest.mark.slow
async def test_silent_client_is_pinged_and_may_stay() -> None:
    async with connected(limits=WebSocketLimits(ping=0.02, pong=30)) as (_, client):
        with trio.move_on_after(0.1):
            await client.event()
        assert client.pings > 2
        assert text(await client.response(input="Hi.")) == "Hi."


TIMEOUTS: dict[str, tuple[WebSocketLimits, bytes, tuple[int, str]]] = {
    "idle": (WebSocketLimits(idle=0.05), b"", (1001, "no response in progress for 0.05 s")),
    "no pong": (WebSocketLimits(ping=0.02, pong=0.05), b"", (1008, "no answer to pings for 0.05 s")),
    "a message that pauses": (
        WebSocketLimits(message_gap=0.05),
        frame(TEXT, b"{", fin=False),
        (1008, "the message did not arrive in time"),
    ),
    "a frame that pauses": (
        WebSocketLimits(message_gap=0.05),
        frame(TEXT, CREATE)[:-1],
        (1008, "the message did not arrive in time"),
    ),
    "a message that lasts": (
        WebSocketLimits(message_total=0.05),
        frame(TEXT, b"{", fin=False),
        (1008, "the message did not arrive in time"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TIMEOUTS)
async def test_client_that_takes_too_long_is_closed(case: str) -> None:
    limits, sent, end = TIMEOUTS[case]
    async with connected(limits=limits) as (_, client):
        client.answers_pings = False
        await client.http.send(sent)
        assert await client.closed() == end


SETTINGS: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "idle": ({"websocket_idle_timeout_seconds": 0.1}, (1001, "no response in progress for 0.1 s")),
    "no pong": ({"websocket_ping_seconds": 0.05}, (1008, "no answer to pings for 0.3 s")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "end"), SETTINGS.values(), ids=SETTINGS)
async def test_operator_chooses_the_limits_of_silence(settings: dict[str, Any], end: tuple[int, str]) -> None:
    async with connected(**settings) as (_, client):
        client.answers_pings = False
        assert await client.closed() == end


async def test_messages_over_tls_are_read_and_answered(tmp_path: Path) -> None:
    found = certificate(tmp_path)
    tls: dict[str, Any] = {"ssl_certfile": found.certfile, "ssl_keyfile": found.keyfile}
    async with served(**tls) as running, await tls_client(running.port, found.client_context) as http:
        await http.send(handshake())
        assert (await http.head()).status == 101
        client = SocketClient(http)
        await client.http.send(cut(CREATE, 10))
        assert text((await client.stream())[-1]["response"]) == "Hi."
        await client.send(CloseConnection(1000))
        with trio.fail_after(CLOSE_SECONDS / 2):
            assert await client.closed() == (1000, "")
        await running.app.wait_idle()


@pytest.mark.slow
async def test_message_beyond_the_limit_is_discarded_until_the_client_has_closed() -> None:
    """A client that writes everything before it reads still gets the close frame."""
    async with connected(max_body_megabytes=LIMIT / 1e6) as (_, client):
        await client.http.send(frame(TEXT, b"x" * 2_000_000))
        with trio.fail_after(CLOSE_SECONDS / 2):
            assert (await client.closed())[0] == 1009


@st.composite
def soup(draw: st.DrawFn) -> bytes:
    """Frames of any kind, some of them broken."""
    frames = draw(
        st.lists(
            st.builds(
                frame,
                st.integers(0, 15),
                st.binary(max_size=200) | st.sampled_from([CREATE, b"{}", b'{"type": "response.steer"}']),
                fin=st.booleans(),
                mask=st.none() | st.binary(min_size=4, max_size=4),
                rsv=st.sampled_from([0] * 9 + [4]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    return b"".join(frames) + draw(st.binary(max_size=5))


@pytest.mark.slow
async def test_random_frames_end_nothing() -> None:
    drawn: list[bytes] = []

    @settings(max_examples=300, database=None, deadline=None)
    @given(soup())
    def draw(data: bytes) -> None:
        drawn.append(data)

    draw()
    async with served(ScriptedModel(lambda message: b"Yes.")) as running:
        for data in drawn:
            async with await SocketClient.to(running) as client:
                await client.http.send(data)
                await client.http.half_close()
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await client.closed()
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()
        assert running.app._services.bodies._occupied == 0
        assert (running.app.running, running.app.waiting) == (0, 0)
        async with await SocketClient.to(running) as client:
            await client.send(TextMessage(json.dumps({"type": "response.create", "model": NAME, "input": "Hi."})))
            assert text((await client.stream())[-1]["response"]) == "Yes."
