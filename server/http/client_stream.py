"""Byte stream between a client and the server, below HTTP and WebSocket: the transport of `server.websocket`.

Written bytes go to the kernel without a turn of the event loop if its buffer has space for them.
"""

from contextlib import suppress
from typing import TypeAlias

import trio

from server.access import Refusal
from server.http.disconnect_watch import CLIENT_DISCONNECTED
from server.http.drain import Drain
from server.http.sockets import peer_of, read_some, write_available
from server.listening import HTTPOptions

Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"

READ_BYTES = 16384
"""Bytes per read: as many tiny frames of a WebSocket take a few ten milliseconds of the event loop."""
DISCARD_BYTES = 65536
"""Bytes per read that are discarded."""
DISCARD_SECONDS = 2.0
"""Seconds to read and discard from a client that is still sending after its response.

Closing at once could destroy the response before the client reads it (RFC 9112, 9.6).
"""

STOPPED_READING = "client stopped reading"


class ClientStream:
    def __init__(self, stream: Stream, drain: Drain, options: HTTPOptions) -> None:
        self._stream = stream
        self._drain = drain
        self._options = options
        self.encrypted = isinstance(stream, trio.SSLStream)
        self._socket = (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket
        self.gone = trio.Event()
        """Set when the client cannot receive anything any more."""
        self.disconnect_reason = CLIENT_DISCONNECTED
        """Reason for which the client is gone, for the log."""
        self._idle: trio.CancelScope | None = None
        """Scope to cancel at shutdown, while the connection is idle."""

    @property
    def peer(self) -> tuple[str, int] | None:
        """Address and port of the client; None if it has disconnected."""
        return peer_of(self._socket)

    async def read(self) -> bytes:
        """Return received bytes; none at the end of the client's input."""
        try:
            if not self.encrypted:
                return await read_some(self._socket, READ_BYTES)
            return bytes(await self._stream.receive_some(READ_BYTES))
        except (OSError, trio.BrokenResourceError):
            return b""

    async def write(self, data: bytes) -> None:
        """Send bytes; do nothing once the client is gone."""
        if self.gone.is_set() or not data:
            return
        try:
            sent = 0 if self.encrypted else write_available(self._socket, data)
        except OSError:
            self.gone.set()
            return
        if sent < len(data):
            await self._write_rest(data[sent:])

    async def finish(self) -> None:
        """Announce the end, and discard input, so that a client that is still sending can read what was sent."""
        if self.gone.is_set():
            return
        with suppress(trio.BrokenResourceError), trio.move_on_after(DISCARD_SECONDS):
            if isinstance(self._stream, trio.SocketStream):  # TLS has no half-close
                await self._stream.send_eof()
            while await self._stream.receive_some(DISCARD_BYTES):
                pass

    def set_idle(self, scope: trio.CancelScope | None) -> None:
        """Cancel `scope` at shutdown, or in favour of new connections, until the next call; None: never."""
        if self._idle is not None:
            self._drain.remove(self._idle)
        self._idle = scope
        if scope is not None:
            self._drain.add(scope)

    @property
    def shutting_down(self) -> bool:
        return self._drain.closed

    async def _write_rest(self, data: bytes) -> None:
        """Write as the client reads."""
        try:
            with self._drain.writing(self._socket), trio.fail_after(self._options.limits.write_seconds):
                await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self.gone.set()
        except trio.TooSlowError:  # it acknowledges packets and reads nothing
            self._options.refusals[Refusal.WRITE_TIMEOUT] += 1
            self.disconnect_reason = STOPPED_READING
            self.gone.set()
            with suppress(OSError):
                self._socket.shutdown(trio.socket.SHUT_RDWR)  # wakes the task that waits in `read`
        except trio.Cancelled:
            self.gone.set()  # a frame was cut, so nothing can follow it
            raise
