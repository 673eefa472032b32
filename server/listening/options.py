"""Options of the listener. A reload replaces them for the next connections."""

import ssl

from msgspec import Struct, field

from server.access import RefusalCounts, TrustedProxies
from server.config import Config, ConfigError
from server.listening.certificates import CertificateError, tls_context


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
    tls: ssl.SSLContext | None = None
    """Encryption of TCP connections; None: plain HTTP. Unix sockets are never encrypted."""
    refusals: RefusalCounts = field(default_factory=RefusalCounts)
    """Counts for the metrics; a reload continues them."""


def http_options(config: Config) -> HTTPOptions:
    """Return the options; read the certificate. Raises ConfigError."""
    return HTTPOptions(
        HTTPLimits(
            connections=config.max_connections,
            connections_per_address=config.max_connections_per_address,
            idle_seconds=config.keep_alive_timeout_seconds,
            header_bytes=config.max_header_kilobytes * 1000,
            write_seconds=config.write_timeout_seconds,
        ),
        TrustedProxies(config.trust_proxies),
        _tls(config),
    )


def _tls(config: Config) -> ssl.SSLContext | None:
    """Return the context of the configured certificate; None without one. Raises ConfigError."""
    if config.ssl_certfile is None:
        if config.ssl_keyfile is not None:
            raise ConfigError("--ssl-keyfile needs --ssl-certfile: name the certificate of the key")
        return None
    try:
        return tls_context(config.ssl_certfile, config.ssl_keyfile)
    except CertificateError as error:
        raise ConfigError(str(error)) from error
