"""WebSocket (RFC 6455) over wsproto and trio: the opening handshake, messages, pings and closing."""

from server.websocket.closing import CloseCode, SocketClosed
from server.websocket.handshake import accept_headers
from server.websocket.limits import WebSocketLimits
from server.websocket.socket import WebSocket

__all__ = [
    "CloseCode",
    "SocketClosed",
    "WebSocket",
    "WebSocketLimits",
    "accept_headers",
]
