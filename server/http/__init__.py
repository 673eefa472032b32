"""HTTP over h11 and trio: listening sockets, connections, exchanges, routes."""

from server.http.bodies import Bodies
from server.http.drain import Drain
from server.http.exchange import CLIENT_DISCONNECTED, ClientDisconnected, Exchange, Receive, Scope, Send
from server.http.h11_patches import apply as patch_h11
from server.http.options import HTTPLimits, HTTPOptions
from server.http.router import Handlers, Router
from server.http.sockets import BindError, ExposedAddress, ListeningSockets, listening_sockets
from server.http.tls import TLS, CertificateError
from server.http.work_thread import ITEM_BYTES, LARGE, Check, WorkThread

__all__ = [
    "CLIENT_DISCONNECTED",
    "ITEM_BYTES",
    "LARGE",
    "TLS",
    "BindError",
    "Bodies",
    "CertificateError",
    "Check",
    "ClientDisconnected",
    "Drain",
    "Exchange",
    "ExposedAddress",
    "HTTPLimits",
    "HTTPOptions",
    "Handlers",
    "ListeningSockets",
    "Receive",
    "Router",
    "Scope",
    "Send",
    "WorkThread",
    "listening_sockets",
    "patch_h11",
]
