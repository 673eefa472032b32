"""HTTP over h11 and trio: connections, exchanges, routes, and connections to other servers."""

from server.http.bodies import Bodies
from server.http.client import Headers, OutgoingConnection, TLSFailed, connect
from server.http.drain import Drain
from server.http.exchange import ClientDisconnected, Exchange, Receive, Scope, Send, new_request_id
from server.http.json_depth import is_deeper
from server.http.router import Handlers, Router

__all__ = [
    "Bodies",
    "ClientDisconnected",
    "Drain",
    "Exchange",
    "Handlers",
    "Headers",
    "OutgoingConnection",
    "Receive",
    "Router",
    "Scope",
    "Send",
    "TLSFailed",
    "connect",
    "is_deeper",
    "new_request_id",
]
