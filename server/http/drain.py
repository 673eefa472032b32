"""Idle connections: how long they may wait for a request, and how they end at shutdown."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import trio

FIRST_SECONDS = 0.5
"""Seconds that a new connection has for its first request once the server stops. Its client expects an answer."""

ACCEPT_SECONDS = 0.05
"""Seconds until the connections that were accepted last are known."""

LAST_BYTES = 4_000_000
"""Bytes of the send buffer of a client that reads nothing; the kernel may allow less (net.core.wmem_max)."""


class Drain:
    """Coordinator of graceful shutdown: closing cancels idle connections; others send `Connection: close`."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: dict[trio.CancelScope, bool] = {}
        """Scope of an idle connection -> True before its first request; the longest idle first."""
        self._requested = trio.lowlevel.ParkingLot()
        self._writing: set[trio.socket.SocketType] = set()
        """Sockets whose send buffer is full."""
        self._widened = False

    @contextmanager
    def wait_for_request(self, seconds: float, first: bool = False) -> Iterator[trio.CancelScope]:
        """Cancel the block when the drain closes, in favour of a new connection, or after some seconds."""
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            self.add(scope, first)
            try:
                yield scope
            finally:
                self.remove(scope)

    def timed_out(self, scope: trio.CancelScope) -> bool:
        """True if time has ended the block of `scope`, while the server was not stopping."""
        return scope.cancelled_caught and not self.closed and trio.current_time() >= scope.deadline

    def add(self, scope: trio.CancelScope, first: bool = False) -> None:
        """Cancel the scope when the drain closes, or in favour of a new connection."""
        self._waiting[scope] = first
        if self.closed:
            self._end(scope)

    def remove(self, scope: trio.CancelScope) -> None:
        """Leave the scope alone from now on."""
        self._waiting.pop(scope, None)
        self._requested.unpark_all()

    def close_idle(self) -> bool:
        """Close the connection that is idle longest, in favour of a new one; return False if none is idle."""
        if not self._waiting:
            return False
        scope = next(iter(self._waiting))
        del self._waiting[scope]
        scope.cancel()
        return True

    def close(self) -> None:
        self.closed = True
        for scope in self._waiting:
            self._end(scope)

    async def wait_first_requests(self) -> None:
        """After `close`, wait until each new connection has its first request, or ran out of time for it."""
        await trio.sleep(ACCEPT_SECONDS)
        while any(self._waiting.values()):
            await self._requested.park()

    @contextmanager
    def writing(self, connected: trio.socket.SocketType) -> Iterator[None]:
        """Mark a socket as full while the block writes to it."""
        if self._widened:
            _widen(connected)
        self._writing.add(connected)
        try:
            yield
        finally:
            self._writing.discard(connected)

    def widen(self) -> None:
        """Enlarge full send buffers, now and later: the kernel delivers their content after the process has ended."""
        self._widened = True
        for connected in self._writing:
            _widen(connected)  # wakes the writing task

    def _end(self, scope: trio.CancelScope) -> None:
        if self._waiting[scope]:
            scope.deadline = min(scope.deadline, trio.current_time() + FIRST_SECONDS)
        else:
            scope.cancel()


def _widen(connected: trio.socket.SocketType) -> None:
    """Enlarge a send buffer. The kernel's own size may be larger already, and must not become smaller.

    Trio leaves 16 kB of it unsent at most (TCP_NOTSENT_LOWAT).
    """
    with suppress(OSError):
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, LAST_BYTES)
        if connected.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < _largest_buffer():
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LAST_BYTES)


@cache
def _largest_buffer() -> int:
    """Return the size that the kernel gives to a send buffer at most."""
    with socket.socket() as scratch:
        scratch.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LAST_BYTES)
        return scratch.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
