"""Addresses of clients behind trusted proxies: X-Forwarded-For and X-Forwarded-Proto. Pure."""

import ipaddress
import re
from collections.abc import Iterable

from msgspec import Struct

MAX_HOPS = 32
"""Maximum number of hops to read from the right; no deployment has as many proxies."""
UNIX = "unix"
"""Address of every client of a unix socket."""
_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](:\d+)?|(?P<v4>[0-9.]+):\d+")
"""Address with its port, as some proxies write it."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ForwardedClient(Struct, frozen=True):
    """A client that sent its request through proxies, or directly."""

    address: str
    garbage: str = ""
    """First entry from the right that is not an address; it and all entries before it are ignored."""


class TrustedProxies:
    def __init__(self, names: Iterable[str] = ()) -> None:
        """Trust addresses, networks in CIDR notation, and `unix`, the clients of unix sockets. Raises ValueError."""
        listed = [name.strip().lower() for name in names]
        self._unix = UNIX in listed
        self._networks = [_network(name) for name in listed if name != UNIX]

    def trusts(self, address: str) -> bool:
        """True if the headers of this peer are trusted."""
        if address == UNIX:
            return self._unix
        if not self._networks or (found := _address(address)) is None:
            return False
        return any(found in network for network in self._networks)

    def client(self, peer: str, forwarded: Iterable[bytes]) -> ForwardedClient:
        """Return the client by the values of X-Forwarded-For: the right-most hop that is not trusted.

        Each proxy appends the address of its own client, so everything left of that hop cannot be trusted.
        """
        client = peer
        entries = b",".join(forwarded).decode("latin-1").split(",")[-MAX_HOPS:]
        while entries and self.trusts(client):
            entry = entries.pop().strip()
            if entry and (found := _address(_without_port(entry))) is None:
                return ForwardedClient(client, entry)
            client = str(found) if entry else client
        return ForwardedClient(client)

    def scheme(self, peer: str, forwarded: Iterable[bytes], own: str) -> str:
        """Return the scheme that the client used, by the last value of X-Forwarded-Proto if the peer is trusted."""
        last = b",".join(forwarded).decode("latin-1").rpartition(",")[2].strip().lower()
        return last if last in ("http", "https") and self.trusts(peer) else own


def _network(name: str) -> _Network:
    return ipaddress.ip_network(name, strict=False)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address, without its zone; as IPv4 if it is an IPv4 client of an IPv6 socket."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def _without_port(entry: str) -> str:
    match = _PORT.fullmatch(entry)
    return entry if match is None else match["v6"] or match["v4"] or entry
