"""One request to another server of the same database, by HTTP/1.1 over h11 and trio, on a connection of its own."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit

import h11
import trio

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

RELAYED = b"x-responsed-relayed"
"""Header of a request that was relayed once: nobody relays it again."""
CONNECT_SECONDS = 3.0
HEAD_SECONDS = 15.0
"""Seconds until the head of the answer: a cancelled response ends within a step of the model."""
MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 256 << 20
"""Bytes of an answer in one piece at most."""
CHUNK_BYTES = 65_536


class PeerFailure(Exception):
    """The server does not answer, or its answer ended early. The message is the end of a sentence about it."""


class PeerAnswer:
    """Head and body of an answer."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection, head: h11.Response) -> None:
        self._stream = stream
        self._connection = connection
        self.status: int = head.status_code
        self.headers: Headers = [(bytes(name), bytes(value)) for name, value in head.headers]

    async def chunk(self) -> bytes:
        """Return the next bytes of the body; none at its end. Raises PeerFailure if it ends early."""
        event = await _next_event(self._stream, self._connection)
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def body(self) -> bytes:
        """Return the whole body. Raises PeerFailure."""
        body = bytearray()
        while chunk := await self.chunk():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise PeerFailure("its answer is too large")
        return bytes(body)


@asynccontextmanager
async def ask(url: str, method: str, target: str, headers: Headers) -> AsyncIterator[PeerAnswer]:
    """Send a request without a body; yield its answer. Raises PeerFailure."""
    parts = urlsplit(url)
    with trio.move_on_after(CONNECT_SECONDS) as scope:
        stream = await _connected(parts.scheme, parts.hostname or "", parts.port)
    if scope.cancelled_caught:
        raise PeerFailure("it cannot be reached in time")
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        fixed = [(b"host", parts.netloc.encode()), (b"connection", b"close"), (RELAYED, b"1")]
        request = h11.Request(method=method, target=parts.path.rstrip("/") + target, headers=[*fixed, *headers])
        with trio.move_on_after(HEAD_SECONDS) as scope:
            await _send(stream, (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            head = await _next_event(stream, connection)
        if scope.cancelled_caught:
            raise PeerFailure("it does not answer in time")
        assert isinstance(head, h11.Response)
        yield PeerAnswer(stream, connection, head)
    finally:
        await trio.aclose_forcefully(stream)


async def _connected(scheme: str, host: str, port: int | None) -> trio.abc.Stream:
    try:
        stream = await trio.open_tcp_stream(host, port or (443 if scheme == "https" else 80))
    except OSError as error:
        raise PeerFailure(f"it cannot be reached ({error})") from error
    if scheme != "https":
        return stream
    encrypted = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host)
    try:
        await encrypted.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise PeerFailure(f"TLS: {error.__cause__}") from error
    return encrypted


async def _send(stream: trio.abc.Stream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError as error:
        raise PeerFailure("it closed the connection") from error


async def _next_event(stream: trio.abc.Stream, connection: h11.Connection) -> h11.Event:
    """Return the next event that is no interim response. Raises PeerFailure."""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(CHUNK_BYTES)))
            elif not isinstance(event, h11.InformationalResponse):
                assert isinstance(event, h11.Event)
                return event
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise PeerFailure("its answer ended early") from error
