"""Count of connections, in all and by address. Pure."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.http.options import HTTPOptions


class ConnectionCount:
    def __init__(
        self, options: HTTPOptions, max_connections: Callable[[], int], close_oldest: Callable[[], bool]
    ) -> None:
        """`max_connections` returns the number that file descriptors allow; `close_oldest` closes an idle connection
        and returns False if there is none."""
        self._options = options
        self._max_connections = max_connections
        self._close_oldest = close_oldest
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def admit(self, address: str) -> Iterator[bool]:
        """Count a connection while the block runs. Yield False if it must be closed at once.

        Beyond the limit of all connections, a new one takes the place of the one that is idle longest.
        """
        self._by_address[address] += 1
        try:
            if self._is_limited(address) and self._by_address[address] > self._options.limits.connections_per_address:
                yield False
            elif self._by_address.total() > min(self._options.limits.connections, self._max_connections()):
                yield self._close_oldest()
            else:
                yield True
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _is_limited(self, address: str) -> bool:
        """Return False for trusted proxies, and for loopback addresses and unix sockets, where a proxy may stand."""
        return _is_remote(address) and not self._options.proxies.trusts(address)


def _is_remote(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
