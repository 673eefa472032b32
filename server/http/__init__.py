"""Bytes to HTTP exchanges and back, over h11 and trio. Imports `protocol`."""

from server.http.access import AccessPolicy
from server.http.bodies import Bodies
from server.http.exchange import Exchange, HungUp, Receive, Scope, Send
from server.http.router import Routes

__all__ = [
    "AccessPolicy",
    "Bodies",
    "Exchange",
    "HungUp",
    "Receive",
    "Routes",
    "Scope",
    "Send",
]
