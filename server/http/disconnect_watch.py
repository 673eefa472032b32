"""Notice of a client's disconnect, which ends what only that client needs.

Only a task that waits in `receive()` notices a disconnect; `send()` does not report one.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio

CLIENT_DISCONNECTED = "client disconnected"


class DisconnectWatch:
    """Watch over the client of one request. Its task begins with the first block that a disconnect ends."""

    def __init__(self, receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        self.reason = CLIENT_DISCONNECTED
        """Reason of the disconnect, for the log."""
        self._receive = receive
        self._nursery: trio.Nursery | None = None
        self._begun = self._disconnected = False
        self._scopes: list[trio.CancelScope] = []
        """Scopes to cancel when the client disconnects."""

    async def serve(self, handler: Callable[[], Awaitable[None]]) -> None:
        """Call the handler, beside the task that notices a disconnect."""
        async with trio.open_nursery() as self._nursery:
            await handler()
            self._nursery.cancel_scope.cancel()

    @contextmanager
    def until_disconnect(self) -> Iterator[None]:
        """Cancel the block when the client disconnects. The body must have been read.

        Call `Exchange.close` after the block: a client that disconnects on its last frame must not cancel that frame.
        """
        with trio.CancelScope() as scope, self._cancelling(scope):
            yield

    @contextmanager
    def while_connected(self) -> Iterator[None]:
        """Cancel the handler when the client disconnects during the block. The body must have been read."""
        with self._cancelling(self._serving.cancel_scope):
            yield

    @contextmanager
    def _cancelling(self, scope: trio.CancelScope) -> Iterator[None]:
        """Cancel the scope when the client disconnects during the block, or at once if it has."""
        if not self._begun:
            self._begun = True
            self._serving.start_soon(self._watch)
        self._scopes.append(scope)
        if self._disconnected:
            scope.cancel()
        try:
            yield
        finally:
            self._scopes.remove(scope)

    @property
    def _serving(self) -> trio.Nursery:
        assert self._nursery is not None, "`serve` runs"
        return self._nursery

    async def _watch(self) -> None:
        while (message := await self._receive())["type"] != "http.disconnect":
            pass
        self._disconnected = True
        self.reason = message["reason"]
        for scope in self._scopes:
            scope.cancel()
