"""Lines of the log about requests, one for each that has ended."""

import logging

from server.generation import notes
from server.http import Exchange
from server.session import SessionTurn

PUBLIC = ("/health", "/ready")
"""Paths without checks of keys, Host and Origin."""
KEYLESS = (*PUBLIC, "/")
"""Paths without a check of keys."""
UNLOGGED = (*PUBLIC, "/metrics", "/status")
"""Paths whose successful requests are not logged: managers call them every few seconds."""

log = logging.getLogger("responsed.http")


def log_request(exchange: Exchange | SessionTurn, seconds: float) -> None:
    """Write the line of a request that has ended."""
    log.log(
        _level(exchange),
        "%s %s %s %s %d%s %.1f ms%s",
        exchange.id,
        exchange.client_name,
        exchange.method,
        exchange.target,
        exchange.status,
        f" {exchange.outcome}" if exchange.outcome else "",
        seconds * 1e3,
        notes(exchange.skipped, exchange.trace_id, exchange.client_request_id),
    )


def _level(exchange: Exchange | SessionTurn) -> int:
    """Return the level of a request's line: answers have lines of their own, and probes say nothing."""
    if exchange.starts_generation or (exchange.status < 400 and exchange.path in UNLOGGED):
        return logging.DEBUG
    return logging.INFO
