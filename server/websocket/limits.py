"""Limits of a WebSocket. Data only."""

import math

from msgspec import Struct


class WebSocketLimits(Struct, frozen=True):
    """Limits of one connection, in seconds."""

    ping: float = 20.0
    """Silence of the client until a ping."""
    pong: float = 120.0
    """Silence of the client, despite pings, until the end. Some clients answer pings only while they receive."""
    idle: float = 600.0
    """Time without a response in progress until the end."""
    age: float = 3600.0
    """Age after which the connection accepts no further request (Open Responses, "WebSocket Reconnects")."""
    message_gap: float = 20.0
    """Pause within a message."""
    message_total: float = math.inf
    """Time for a whole message."""
