"""Interfaces around a WebSocket: the byte stream below it, and the memory for its messages."""

from typing import Protocol

import trio


class Transport(Protocol):
    """Byte stream below the WebSocket."""

    async def read(self) -> bytes:
        """Return received bytes; none at the end of the client's input."""

    async def write(self, data: bytes) -> None:
        """Send bytes; do nothing once the client is gone."""

    async def finish(self) -> None:
        """Announce the end, and discard what the client is still sending."""

    def set_idle(self, scope: trio.CancelScope | None) -> None:
        """Cancel `scope` at shutdown, or in favour of new connections, until the next call; None: never."""

    @property
    def disconnect_reason(self) -> str:
        """Reason for which the client is gone, for the log."""

    @property
    def shutting_down(self) -> bool:
        """True if the server accepts no further request."""


class Budget(Protocol):
    """Memory for messages."""

    def reserve(self, size: int, total: int) -> None:
        """Count `size` more bytes of a message that has `total` bytes then. Raises ApiError."""

    def free(self, size: int) -> None:
        """Free bytes that were reserved."""
