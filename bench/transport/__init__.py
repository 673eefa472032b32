"""Connections to a server: addresses, TLS, the end of a response, readiness."""

from transport.connection import ClientConnection, ConnectionPhase
from transport.endpoint import Endpoint, Tls
from transport.readiness import START_SECONDS, authorization, wait_ready

__all__ = ["START_SECONDS", "ClientConnection", "ConnectionPhase", "Endpoint", "Tls", "authorization", "wait_ready"]
