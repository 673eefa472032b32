"""Idle connections: how long they may wait for a request, and how they end at shutdown."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

FIRST_SECONDS = 0.5
"""Seconds that a new connection has for its first request once the server stops. Its client expects an answer."""

ACCEPT_SECONDS = 0.05
"""Seconds until the connections that were accepted last are known."""


class Drain:
    """Coordinator of graceful shutdown: closing cancels idle connections; others send `Connection: close`."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: dict[trio.CancelScope, bool] = {}
        """Scope of an idle connection -> True before its first request; the longest idle first."""
        self._requested = trio.lowlevel.ParkingLot()

    @contextmanager
    def wait_for_request(self, seconds: float, first: bool = False) -> Iterator[None]:
        """Cancel the block when the drain closes, or after some seconds."""
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            self.add(scope, first)
            try:
                yield
            finally:
                self.remove(scope)

    def add(self, scope: trio.CancelScope, first: bool = False) -> None:
        """Cancel the scope when the drain closes, or in favour of a new connection."""
        self._waiting[scope] = first
        if self.closed:
            self._end(scope)

    def remove(self, scope: trio.CancelScope) -> None:
        """Leave the scope alone from now on."""
        self._waiting.pop(scope, None)
        self._requested.unpark_all()

    def close_oldest(self) -> bool:
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
        """After `close`, wait until each new connection has its first request, or had no more time for it."""
        await trio.sleep(ACCEPT_SECONDS)
        while any(self._waiting.values()):
            await self._requested.park()

    def _end(self, scope: trio.CancelScope) -> None:
        if self._waiting[scope]:
            scope.deadline = min(scope.deadline, trio.current_time() + FIRST_SECONDS)
        else:
            scope.cancel()
