"""Idle connections: how long they may wait for a request, and how they end at shutdown."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

REQUEST_SECONDS = 20.0
"""Seconds until the head of a request is complete, counted from the end of the previous request.

Clients close idle connections earlier (httpx after 5 s, node after 4 s): a server that closes first loses requests.
"""


class Drain:
    """Coordinator of graceful shutdown: closing cancels idle connections; others send `Connection: close`."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: dict[trio.CancelScope, None] = {}
        """Scopes of idle connections, the longest idle first."""

    @contextmanager
    def wait_for_request(self) -> Iterator[None]:
        """Cancel the block when the drain closes, or after REQUEST_SECONDS."""
        with trio.CancelScope(deadline=trio.current_time() + REQUEST_SECONDS) as scope:
            self.add(scope)
            try:
                yield
            finally:
                self.remove(scope)

    def add(self, scope: trio.CancelScope) -> None:
        """Cancel the scope when the drain closes, or in favour of a new connection."""
        if self.closed:
            scope.cancel()
        self._waiting[scope] = None

    def remove(self, scope: trio.CancelScope) -> None:
        """Leave the scope alone from now on."""
        self._waiting.pop(scope, None)

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
            scope.cancel()
