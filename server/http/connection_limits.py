"""Limits of connections, in all and by address.

Beyond the limit of all, status probes are answered, and everything else gets a 503.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

import trio
from msgspec.structs import replace

from server.access import Refusal, RefusalCounts
from server.http.connection import Application
from server.http.exchange import Exchange, Receive, Scope, Send, new_request_id
from server.listening import HTTPOptions
from server.protocol.errors import Unavailable

PROBES = ("/health", "/ready")
IDLE_SECONDS = 1.0
"""Seconds that a connection beyond the limit has for its request."""
RESERVED_CONNECTIONS = 16
"""Connections beyond the limit at the same time."""


class Admission(Enum):
    """Kind of a connection."""

    ADMITTED = auto()
    RESERVED = auto()
    """It may ask for the status of the server: all other places are taken, and no connection is idle."""
    REFUSED = auto()
    """It must be closed at once."""


class ConnectionCount:
    def __init__(
        self, options: HTTPOptions, max_connections: Callable[[], int], close_idle: Callable[[], bool]
    ) -> None:
        """`max_connections` returns the number that file descriptors allow; `close_idle` closes an idle connection
        and returns False if there is none."""
        self._options = options
        self._max_connections = max_connections
        self._close_idle = close_idle
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def admit(self, address: str) -> Iterator[Admission]:
        """Count a connection while the block runs, and yield its kind.

        Beyond the limit of all connections, a new one takes the place of the one that is idle longest.
        """
        self._by_address[address] += 1
        try:
            yield self._decide(address)
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _decide(self, address: str) -> Admission:
        limits, refusals = self._options.limits, self._options.refusals
        if self._is_limited(address) and self._by_address[address] > limits.connections_per_address:
            refusals[Refusal.ADDRESS_LIMIT] += 1
            return Admission.REFUSED
        if self._by_address.total() <= min(limits.connections, self._max_connections()):
            return Admission.ADMITTED
        if self._close_idle():
            refusals[Refusal.DISPLACED] += 1
            return Admission.ADMITTED
        return Admission.RESERVED

    def _is_limited(self, address: str) -> bool:
        """Return False for trusted proxies, and for loopback addresses and unix sockets, which may belong to a
        proxy."""
        return _is_remote(address) and not self._options.proxies.trusts(address)


def _is_remote(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Reserve:
    """Places for connections beyond the limit. A new one takes the place of the oldest."""

    def __init__(self, refusals: RefusalCounts) -> None:
        self._refusals = refusals
        self._scopes: dict[trio.CancelScope, None] = {}

    @contextmanager
    def enter(self) -> Iterator[None]:
        if len(self._scopes) == RESERVED_CONNECTIONS:
            oldest = next(iter(self._scopes))
            del self._scopes[oldest]
            oldest.cancel()
            self._refusals[Refusal.CONNECTION_LIMIT] += 1
        with trio.CancelScope() as scope:
            self._scopes[scope] = None
            try:
                yield
            finally:
                self._scopes.pop(scope, None)


class OverloadedApp:
    """Application of connections beyond the limit."""

    def __init__(self, app: Application, refusals: RefusalCounts) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in PROBES:
            return await self._app(scope, receive, send)
        self._refusals[Refusal.CONNECTION_LIMIT] += 1
        exchange = Exchange(scope, receive, send, new_request_id())
        return await exchange.send_error(
            Unavailable("Too many connections are open; try again in a second, or raise --max-connections.")
        )


def with_short_wait(options: HTTPOptions) -> HTTPOptions:
    """Return the options with a short time until the request."""
    idle_seconds = min(IDLE_SECONDS, options.limits.idle_seconds)
    return replace(options, limits=replace(options.limits, idle_seconds=idle_seconds))
