"""Which Host and Origin headers are served. Pure.

A web page can send requests to a server on the visitor's machine. Its browser names the page in `Origin`; a page that
reaches the server by DNS rebinding has a name of its own in `Host` (Fetch standard, "Origin header"; RFC 9110, 7.4).
"""

import ipaddress
import re
from collections.abc import Collection

from server.protocol.errors import ForeignOrigin, Misdirected

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]*\]|[^:\[\]]*)(?::([0-9]*))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class AccessPolicy:
    def __init__(self, hosts: Collection[str], origins: Collection[str]) -> None:
        """`hosts`: names beside `localhost` and IP addresses. `origins`: beside the server's own; `*` is any."""
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, host: str | None, origin: str | None) -> None:
        """Raises Misdirected, ForeignOrigin. A header that the request doesn't have is None."""
        if host is not None and not self._serves(host):
            raise Misdirected(f"This server isn't {host[:100]!r}: use its address, or list the name with --allow-host.")
        if origin is not None and not (self.allows(origin) or _same(origin, host)):
            raise ForeignOrigin(f"Pages of {origin[:100]!r} may not call this server: list them with --allow-origin.")

    def allows(self, origin: str) -> bool:
        """True if pages of that origin are listed: browsers need headers for these (CORS)."""
        return bool({origin.lower(), "*"} & self._origins)

    def _serves(self, host: str) -> bool:
        split = _split(host)
        if split is None:
            return False
        name = split[0].rstrip(".")
        return not name or name in self._hosts or _is_address(name)


def _split(authority: str) -> tuple[str, str] | None:
    """Host in lower case, and port; None if it is neither."""
    match = _AUTHORITY.fullmatch(authority.strip().lower())
    return None if match is None else (match[1], match[2] or "")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _same(origin: str, host: str | None) -> bool:
    """True if the origin's host and port are those of the Host header; a port may be left out where it is usual."""
    scheme, separator, authority = origin.lower().partition("://")
    ours, theirs = _split(host or ""), _split(authority)
    usual = _DEFAULT_PORTS.get(scheme)
    if not (separator and usual and ours and theirs and theirs[0]):
        return False
    return (ours[0], ours[1] or usual) == (theirs[0], theirs[1] or usual)
