"""Checks of the Host and Origin headers. Pure.

Web pages can send requests to a server on the visitor's machine. The browser names the page in `Origin`; a page that
reaches the server by DNS rebinding sends its own name in `Host` (Fetch standard, "Origin header"; RFC 9110, 7.4).
"""

import ipaddress
import re
from collections.abc import Collection

from server.protocol.errors import ForeignOrigin, Misdirected

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]*\]|[^:\[\]]*)(?::([0-9]*))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class AccessPolicy:
    def __init__(self, hosts: Collection[str], origins: Collection[str]) -> None:
        """Accept `hosts` besides `localhost` and IP addresses, and `origins` besides the server's own; `*` is any."""
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, host: str | None, origin: str | None) -> None:
        """Raise Misdirected or ForeignOrigin for headers that are not accepted; None stands for a missing header."""
        if host is not None and not self._serves(host):
            raise Misdirected(
                f"Host {host[:100]!r} is not served here; use the server's address, or start it with --allow-host."
            )
        if origin is not None and not (self.allows(origin) or _same_host_and_port(origin, host)):
            raise ForeignOrigin(
                f"Origin {origin[:100]!r} may not call this server; start it with --allow-origin to allow it."
            )

    def allows(self, origin: str) -> bool:
        """True if pages of the origin may call the server; their browsers need CORS headers."""
        return bool({origin.lower(), "*"} & self._origins)

    def _serves(self, host: str) -> bool:
        split = _split(host)
        if split is None:
            return False
        name = split[0].rstrip(".")
        return not name or name in self._hosts or _is_address(name)


def _split(authority: str) -> tuple[str, str] | None:
    """Return the host in lower case and the port; None for anything else."""
    match = _AUTHORITY.fullmatch(authority.strip().lower())
    return None if match is None else (match[1], match[2] or "")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _same_host_and_port(origin: str, host: str | None) -> bool:
    """True if the origin has the host and port of the Host header; the scheme's default port may be omitted."""
    scheme, separator, authority = origin.lower().partition("://")
    ours, theirs = _split(host or ""), _split(authority)
    default_port = _DEFAULT_PORTS.get(scheme)
    if not (separator and default_port and ours and theirs and theirs[0]):
        return False
    return (ours[0], ours[1] or default_port) == (theirs[0], theirs[1] or default_port)
