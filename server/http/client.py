"""One HTTP/1.1 connection to another server, over h11 and trio. It has one request at a time."""

import math
import select
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

import h11
import trio

from server.http import h11_adapter
from server.http.sockets import read_some, write_available

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
READ_BYTES = 1 << 16
MAX_HEAD_BYTES = 1 << 16
"""Bytes of a response's head at most."""
MAX_UNREAD_BYTES = 1 << 16
"""Bytes of a request that a server's socket takes although the server reads nothing."""
MAX_EVENTS = 64
"""Parts of an answer that are read without a turn of the event loop: 3 ms for tiny ones."""
TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
"""Beginnings of an alert and of a handshake (RFC 8446, 5.1)."""


class OutgoingConnection:
    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        h11_adapter.patch()
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._sent = False
        """True once a request was sent in full."""
        self._events = 0
        """Parts of an answer since the last turn of the event loop."""
        self.silent = True
        """True until the first byte of the answer."""
        self.closed = False
        """True once the server has closed its direction."""

    async def ask(
        self, method: str, target: str, headers: Headers, body: bytes, deadline: float = math.inf
    ) -> h11.Response:
        """Send a request and return the head of its answer, which may come before the server has read everything.

        `deadline`: for the head, and for the last byte of the request. Raises as `head` does.
        """
        data = self._encoded(method, target, headers, body)
        if len(data) <= MAX_UNREAD_BYTES:
            await self._send_unless_refused(data, deadline)
            h11_adapter.expect_answer(self._h11, method)
            return await self.head(deadline)
        h11_adapter.expect_answer(self._h11, method)
        failure: Exception | None = None
        with trio.fail_at(deadline):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_unless_refused, data)
                try:
                    head = await self.head()
                except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
                    failure = error
                if failure is not None or head.status_code >= 300:
                    nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return head

    def _encoded(self, method: str, target: str, headers: Headers, body: bytes) -> bytes:
        self._sent, self.silent = False, True
        return h11_adapter.request_head(method, target, [*headers, (b"content-length", b"%d" % len(body))]) + body

    async def _send(self, data: bytes, deadline: float = math.inf) -> None:
        sent = 0
        if isinstance(self._stream, trio.SocketStream):
            try:
                sent = write_available(self._stream.socket, data)
            except OSError as error:
                raise trio.BrokenResourceError from error
        if sent < len(data):
            with trio.fail_at(deadline):
                await self._stream.send_all(data[sent:])
        self._sent = True

    async def _send_unless_refused(self, data: bytes, deadline: float = math.inf) -> None:
        """Send a request. A server that closes its connection meanwhile may have answered before."""
        with suppress(trio.BrokenResourceError):
            await self._send(data, deadline)

    async def head(self, deadline: float = math.inf) -> h11.Response:
        """Return the head of the answer.

        Raises h11.RemoteProtocolError, trio.BrokenResourceError, and trio.TooSlowError for bytes that have not come at
        the deadline.
        """
        while not isinstance(event := await self._event(), h11.Response):
            if event is h11.NEED_DATA:
                await self._read(deadline)
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the connection was closed")
        return event

    async def data(self, deadline: float = math.inf) -> bytes:
        """Return the next bytes of the body; none at its end. Raises as `head` does."""
        while (event := await self._event()) is h11.NEED_DATA:
            await self._read(deadline)
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        self._events += 1
        if self._events >= MAX_EVENTS:
            self._events = 0
            await trio.lowlevel.checkpoint()
        return self._h11.next_event()

    async def _read(self, deadline: float) -> None:
        """Read from the socket once. Raises as `head` does."""
        self._events = 0
        with trio.CancelScope(deadline=deadline) as scope:  # of each wait: bytes may arrive as its time is over
            data = await self._some()
        if scope.cancelled_caught:
            raise trio.TooSlowError
        self.closed |= not data
        if not data and self._h11.their_state is h11.SEND_RESPONSE:
            raise h11.RemoteProtocolError("it closed the connection without an answer")
        if self.silent and data.startswith(TLS_RECORDS):
            raise h11.RemoteProtocolError("it speaks TLS: use an https URL")
        self.silent &= not data
        self._h11.receive_data(data)

    async def _some(self) -> bytes:
        if not isinstance(self._stream, trio.SocketStream):
            return bytes(await self._stream.receive_some(READ_BYTES))
        try:
            return await read_some(self._stream.socket, READ_BYTES)
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    def recycle(self) -> bool:
        """Prepare for another request. Return False if the connection cannot have one.

        Bytes behind the answer would be read as the answer to the next request.
        """
        if not self._sent or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        if self._h11.trailing_data[0]:
            return False
        self._h11.start_next_cycle()
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
            raise TLSFailed(None, f"TLS: {_tls_reason(error.__cause__)}") from error
        raise
    return OutgoingConnection(encrypted)


def _tls_reason(error: BaseException | None) -> str:
    """Return the reason of a failed handshake in the words of OpenSSL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "it speaks no TLS: use an http URL"
    return str(error or "the connection broke")
