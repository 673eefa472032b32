"""The address of a server: a URL that may lack its scheme or /v1, over TCP, TLS or a Unix socket."""

import http.client
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS = 60.0
"""Maximum seconds of a connection attempt, or of a GET."""
_PORTS = {"http": 80, "https": 443}
_FORMS = "the URL must be http://HOST:PORT, https://HOST:PORT or unix:PATH"


@dataclass(slots=True, frozen=True)
class Tls:
    """Checks of the server's certificate: by the system's authorities, by a file, or none."""

    ca: Path | None = None
    insecure: bool = False

    def context(self) -> Any:
        """Return an `ssl.SSLContext`. Raises OSError, ValueError if the file has no certificate."""
        import ssl  # here, since it takes a tenth of the bench's start

        context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


class Endpoint:
    """A server's base URL, and new connections to it."""

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        """Raises ValueError if the URL is wrong."""
        self.url, scheme, self.host, self.port, self.prefix = _parts(url)
        self.unix = self.host if scheme == "unix" else None
        self.context = (tls or Tls()).context() if scheme == "https" else None
        self.netloc = "localhost" if self.unix else urlsplit(self.url).netloc.rpartition("@")[2]
        self._address: Any = self.unix
        self._family = socket.AF_UNIX

    def resolve(self) -> None:
        """Choose the address of the name that accepts connections. Raises OSError if none does."""
        with self.blocking(CONNECT_SECONDS) as probe:
            self._address, self._family = probe.getpeername(), probe.family

    def blocking(self, seconds: float) -> socket.socket:
        """Return a new connection without TLS. Raises OSError."""
        if self.unix is None:
            return socket.create_connection((self.host, self.port), timeout=seconds)
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(seconds)
        try:
            connected.connect(self.unix)
        except OSError:
            connected.close()
            raise
        return connected

    def connect(self) -> socket.socket:
        """Return a socket that is connecting and does not block."""
        connecting = socket.socket(self._family, socket.SOCK_STREAM)
        connecting.setblocking(False)
        if self._family != socket.AF_UNIX:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting.connect_ex(self._address)  # a failure is raised by the first send
        return connecting

    def get(self, path: str, headers: dict[str, str], seconds: float = CONNECT_SECONDS) -> tuple[int, bytes]:
        """Return status and body of a GET. Raises OSError, http.client.HTTPException."""
        connection = http.client.HTTPConnection(self.host if self.unix is None else "localhost", timeout=seconds)
        connection.sock = self.blocking(seconds)
        if self.context:
            connection.sock = self.context.wrap_socket(connection.sock, server_hostname=self.host)
        try:
            connection.request("GET", self.prefix + path, headers=headers | {"Host": self.netloc})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _parts(url: str) -> tuple[str, str, str, int, str]:
    """Return the completed URL, its scheme, host (or the socket's path), port, and path without /v1."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{_FORMS} with an absolute path, not {url!r}")
        return f"unix:{path}", "unix", path, 0, ""
    completed = url if "://" in url else f"http://{url}"
    parts = urlsplit(completed.rstrip("/").removesuffix("/v1"))
    if parts.scheme not in _PORTS or not parts.hostname or parts.query:
        raise ValueError(f"{_FORMS}, not {url!r}")
    return parts.geturl(), parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], parts.path
