"""HTTP over h11 and trio: listening sockets, connections, exchanges, routes."""

from server.http.bodies import Bodies
from server.http.connection_limits import HTTPLimits
from server.http.exchange import ClientDisconnected, Exchange, Receive, Scope, Send
from server.http.router import Handlers, Router
from server.http.sockets import BindError, ExposedAddress, ListeningSockets, listening_sockets
from server.http.work_thread import ITEM_BYTES, Check, WorkThread

__all__ = [
    "ITEM_BYTES",
    "BindError",
    "Bodies",
    "Check",
    "ClientDisconnected",
    "Exchange",
    "ExposedAddress",
    "HTTPLimits",
    "Handlers",
    "ListeningSockets",
    "Receive",
    "Router",
    "Scope",
    "Send",
    "WorkThread",
    "listening_sockets",
]
