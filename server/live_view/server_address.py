"""Address of a running server, from a URL or from the settings that it was started with, and a GET to it."""

import http.client
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from server.config import Config, ConfigError

UNIX = "unix:"
LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Address of all interfaces -> the one of this machine."""
TIMEOUT_SECONDS = 10.0


class Unreachable(Exception):
    """The server does not answer. The message is one sentence that names its address."""


class ServerAddress(Struct, frozen=True):
    host: str = ""
    port: int = 0
    path: str = ""
    """Path of the unix socket; empty for TCP."""
    tls: bool = False
    prefix: str = ""
    """Path before those of the API, behind a proxy."""
    certificate: Path | None = None
    """Certificate to trust; None: those of the system's authorities."""

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"

    def get(self, path: str, key: str | None) -> tuple[int, bytes]:
        """Return status and body. Raises Unreachable."""
        connection = self._connection()
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            connection.request("GET", self.prefix + path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            message = f"no server answers at {self} ({reason}); start it, or name another address with --url"
            raise Unreachable(message) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.path:
            return _UnixConnection(self.path)
        if self.tls:
            context = _context(self.certificate)
            return http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT_SECONDS, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def from_url(url: str, certificate: Path | None) -> ServerAddress:
    """Return the address of `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`. `http://` and `/v1` may be missing
    or present. Raises ConfigError."""
    if url.startswith(UNIX):
        return ServerAddress(path=url.removeprefix(UNIX).removeprefix("//"))
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--url {url!r} is not http://HOST:PORT, https://HOST:PORT or unix:PATH")
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return ServerAddress(parts.hostname, port or (443 if tls else 80), "", tls, prefix, certificate)


def from_config(config: Config) -> ServerAddress:
    """Return the first address of the settings, as seen from this machine. Raises ConfigError."""
    host = config.hosts[0]
    if host.startswith(UNIX):
        return ServerAddress(path=host.removeprefix(UNIX))
    if not config.port:
        raise ConfigError("port 0 is any free port: name the one that the server's log shows with --url")
    return ServerAddress(
        LOCAL.get(host, host),
        config.port,
        tls=config.ssl_certfile is not None,
        certificate=config.ssl_certfile,
    )


def _context(certificate: Path | None) -> ssl.SSLContext:
    """Return the trust in one certificate, whatever name it is for, or in the system's authorities."""
    if certificate is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may begin with a certificate of an authority
    try:
        context.load_verify_locations(certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{certificate} is not a PEM certificate that you can read") from error
    return context
