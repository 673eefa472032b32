"""One HTTP/1.1 connection to another server, over h11 and trio. It has one request at a time."""

import select
import ssl
from collections.abc import Sequence
from typing import TypeAlias

import h11
import trio

from server.http.h11_patches import apply as patch_h11

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
READ_BYTES = 1 << 16
MAX_HEAD_BYTES = 1 << 16
"""Bytes of a response's head at most."""


class OutgoingConnection:
    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        patch_h11()
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.used = False
        """True if an earlier request was answered on it."""

    async def send(self, method: str, target: str, headers: Headers, body: bytes) -> None:
        """Send a request. Raises trio.BrokenResourceError."""
        head = h11.Request(method=method, target=target, headers=[*headers, (b"content-length", b"%d" % len(body))])
        data = self._h11.send(head) or b""
        data += (self._h11.send(h11.Data(body)) or b"") if body else b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        await self._stream.send_all(data)

    async def head(self) -> h11.Response:
        """Return the head of the answer. Raises h11.RemoteProtocolError, trio.BrokenResourceError."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the connection was closed")

    async def data(self) -> bytes:
        """Return the next bytes of the body; none at its end. Raises as `head` does."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            data = bytes(await self._stream.receive_some(READ_BYTES))
            if not data and self._h11.their_state is h11.SEND_RESPONSE:
                raise h11.RemoteProtocolError("it closed the connection without an answer")
            self._h11.receive_data(data)
        return event

    def recycle(self) -> bool:
        """Prepare for another request. Return False if the connection cannot have one."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self.used = True
        return True

    @property
    def stale(self) -> bool:
        """True if the server has closed the idle connection, or has sent unrequested bytes."""
        transport = self._stream
        while isinstance(transport, trio.SSLStream):
            transport = transport.transport_stream
        poll = select.poll()
        poll.register(transport.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def close(self) -> None:
        """Close at once, without a closing alert of TLS."""
        await trio.aclose_forcefully(self._stream)


class TLSFailed(OSError):
    """The handshake failed, or the certificate is not trusted. `strerror` has the reason."""


async def connect(host: str, port: int, context: ssl.SSLContext | None) -> OutgoingConnection:
    """Return a new connection; `context` encrypts it. Raises OSError."""
    stream = await trio.open_tcp_stream(host, port)
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    if context is None:
        return OutgoingConnection(stream)
    encrypted = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await encrypted.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio.BrokenResourceError):
            raise TLSFailed(None, f"TLS: {error.__cause__ or error}") from error
        raise
    return OutgoingConnection(encrypted)
