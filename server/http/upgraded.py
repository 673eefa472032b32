"""Byte stream of an HTTP connection that has switched to WebSocket."""

from collections.abc import Awaitable, Callable

import trio

from server.http.drain import Drain

READ_BYTES = 16384
"""Bytes per read: as many tiny frames take a few ten milliseconds of the event loop."""


class Upgraded:
    """Transport of `server.websocket`, over the functions of a connection."""

    def __init__(
        self,
        stream: trio.abc.ReceiveStream,
        write: Callable[[bytes], Awaitable[None]],
        finish: Callable[[], Awaitable[None]],
        drain: Drain,
        why: Callable[[], str],
    ) -> None:
        """`why` returns the reason of a disconnect, for the log."""
        self._stream = stream
        self._write = write
        self._finish = finish
        self._drain = drain
        self._why = why
        self._idle: trio.CancelScope | None = None
        """Scope to cancel at shutdown, while the connection is idle."""

    async def read(self) -> bytes:
        """Return received bytes; none at the end of the client's input."""
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except trio.BrokenResourceError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send bytes; do nothing once the client is gone."""
        await self._write(data)

    async def finish(self) -> None:
        """Announce the end, and discard what the client is still sending."""
        await self._finish()

    @property
    def disconnect_reason(self) -> str:
        return self._why()

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
