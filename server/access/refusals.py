"""Counts of connections that the listener refused or closed, by reason."""

from collections import Counter
from enum import StrEnum


class Refusal(StrEnum):
    """Reason of the refusal; its value is the label in the metrics."""

    ADDRESS_LIMIT = "address_limit"
    """One address has too many connections."""
    CONNECTION_LIMIT = "connection_limit"
    """All connections are in use, and none is idle."""
    DISPLACED = "displaced"
    """The connection that was idle longest was closed in favour of a new one."""
    HANDSHAKE = "tls_handshake"
    """Client and server agree on no encryption."""
    HANDSHAKE_TIMEOUT = "tls_timeout"
    PLAIN_HTTP = "plain_http"
    """A request without encryption on a port that has TLS."""
    NO_REQUEST = "no_request"
    """A new connection sent nothing in the time of a head."""
    HEAD_TIMEOUT = "head_timeout"
    """The head of a request was not complete in time."""
    HEAD_TOO_LARGE = "head_too_large"
    MALFORMED = "malformed"
    """Input that is not HTTP/1.1."""
    TRUNCATED = "truncated"
    """The client's input ended within a request."""
    WRITE_TIMEOUT = "write_timeout"
    """The client did not read what was sent."""


class RefusalCounts(Counter[str]):
    """Number of refusals since the start; all reasons are there from the beginning."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(Refusal, 0))
