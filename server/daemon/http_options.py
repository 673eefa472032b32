"""The listener's options, made from the settings."""

from server.access import TrustedProxies
from server.config import Config, ConfigError
from server.http import TLS, CertificateError, HTTPLimits, HTTPOptions


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
        tls(config),
    )


def tls(config: Config) -> TLS | None:
    """Return the TLS of the configured certificate; None without one. Raises ConfigError."""
    if config.ssl_certfile is None:
        if config.ssl_keyfile is not None:
            raise ConfigError("--ssl-keyfile needs --ssl-certfile: name the certificate of the key")
        return None
    try:
        return TLS(config.ssl_certfile, config.ssl_keyfile)
    except CertificateError as error:
        raise ConfigError(str(error)) from error
