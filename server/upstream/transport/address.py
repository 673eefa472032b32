"""Address of an upstream server. Pure."""

from urllib.parse import urlsplit

from msgspec import Struct

PATH = "/v1"
"""Path below which an upstream has its API if its URL has none."""


class Address(Struct, frozen=True):
    url: str
    """URL for people and the metrics."""
    host: str
    port: int
    tls: bool
    path: str

    @property
    def place(self) -> tuple[str, int, bool, str]:
        """Everything but the spelling of the URL."""
        return self.host, self.port, self.tls, self.path

    @classmethod
    def of(cls, url: str) -> "Address":
        """Return the address of a URL that `server.config` has checked."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(
            url.rstrip("/"),
            parts.hostname or "",
            parts.port or (443 if tls else 80),
            tls,
            parts.path.rstrip("/") or PATH,
        )

    @property
    def root(self) -> str:
        """Path above the API, where servers have their own endpoints."""
        return self.path.removesuffix(PATH)

    @property
    def authority(self) -> str:
        """Value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"
