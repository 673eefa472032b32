"""Ends of a WebSocket: close codes and reasons."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Codes of RFC 6455, 7.4.1, and of IANA's registry."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    ABNORMAL = 1006
    """The connection ended without a close frame; never sent."""
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


class SocketClosed(Exception):
    """The connection ends, with the close code and the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
