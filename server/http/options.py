"""Options of the listener. A reload replaces them for the next connections."""

from msgspec import Struct, field

from server.access import RefusalCounts, TrustedProxies
from server.http.tls import TLS


class HTTPLimits(Struct, frozen=True):
    """Limits of connections and of the time that a client may take."""

    connections: int = 1024
    """Connections at the same time; never more than file descriptors allow."""
    connections_per_address: int = 64
    """Connections from one address of another machine."""
    idle_seconds: float = 20.0
    """Seconds until the head of a request is complete, counted from the end of the previous request.

    Clients close idle connections earlier (httpx after 5 s, node after 4 s): a server that closes first loses requests.
    """
    header_bytes: int = 32_000
    """Bytes of the head of a request."""
    write_seconds: float = 30.0
    """Seconds that a client may leave a full send buffer unread."""


class HTTPOptions(Struct):
    limits: HTTPLimits = HTTPLimits()
    proxies: TrustedProxies = TrustedProxies()
    """Peers whose headers name the client; they have no limit of connections per address."""
    tls: TLS | None = None
    """Encryption of TCP connections; None: plain HTTP. Unix sockets are never encrypted."""
    refusals: RefusalCounts = field(default_factory=RefusalCounts)
    """Counts for the metrics; a reload continues them."""
