"""WebSocket (RFC 6455) over wsproto and trio: the opening handshake, messages, pings and closing."""

from server.websocket.handshake import accept_headers
from server.websocket.socket import Budget, CloseCode, SocketClosed, Transport, WebSocket, WebSocketLimits

__all__ = [
    "Budget",
    "CloseCode",
    "SocketClosed",
    "Transport",
    "WebSocket",
    "WebSocketLimits",
    "accept_headers",
]
