"""The message that arrives, whole or in fragments, within its limits of bytes and time."""

import math

import trio
from wsproto.events import TextMessage

from server.protocol.errors import ApiError, BodyTooLarge
from server.websocket.closing import CloseCode, SocketClosed
from server.websocket.limits import WebSocketLimits
from server.websocket.transport import Budget

FRAGMENT_BYTES = 64
"""Bytes for which a fragment counts besides its text, so that empty fragments reach the limit of a message too."""


class IncomingMessage:
    def __init__(self, limits: WebSocketLimits) -> None:
        self._limits = limits
        self._text = bytearray()
        self.reserved = 0
        """Bytes that the unfinished message has reserved."""
        self._began = self._last_part = math.inf
        """Times of the first and the last part of an unfinished message; infinite between messages."""

    @property
    def deadline(self) -> float:
        """Time at which the next part is late; infinite between messages."""
        return min(self._last_part + self._limits.message_gap, self._began + self._limits.message_total)

    def add(self, part: TextMessage, budget: Budget) -> None:
        """Add a part. Raises SocketClosed if it does not fit into the memory."""
        text = part.data.encode()
        fragment = part.frame_finished and not part.message_finished
        size = len(text) + (FRAGMENT_BYTES if fragment else 0)
        try:
            budget.reserve(size, self.reserved + size)
        except BodyTooLarge as error:
            raise SocketClosed(CloseCode.TOO_BIG, "the message is larger than --max-body-megabytes") from error
        except ApiError as error:
            raise SocketClosed(CloseCode.TRY_AGAIN_LATER, error.message) from error
        self.reserved += size
        self._text += text
        self._last_part = trio.current_time()
        self._began = min(self._began, self._last_part)

    def take(self) -> tuple[bytes, int]:
        """Return the complete message and the bytes that it has reserved, and begin the next one."""
        message, reserved = bytes(self._text), self.reserved
        self._text, self.reserved = bytearray(), 0
        self._began = self._last_part = math.inf
        return message, reserved
