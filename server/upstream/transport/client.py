"""HTTP client of one upstream: a pool of idle connections, TLS, and a limit for each wait."""

import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import h11
import trio
from msgspec import Struct

from server.access import FRONTS
from server.http import Headers, OutgoingConnection, connect
from server.upstream.transport import faults
from server.upstream.transport.address import Address
from server.upstream.transport.answer import UpstreamAnswer, broken
from server.upstream.transport.faults import UpstreamFault

MAX_IDLE = 64
"""Number of idle connections."""


class ClientTimeouts(Struct, frozen=True):
    """Seconds."""

    connect: float = 5.0
    """Until the connection is open, with its TLS handshake."""
    first_byte: float = 300.0
    """From the request to the first byte of the answer's body."""
    idle: float = 60.0
    """Between two arrivals of bytes after that."""
    busy: float = 1.0
    """Until another attempt, if a busy upstream names no wait."""


class UpstreamClient:
    def __init__(self, address: Address, timeouts: ClientTimeouts, key: str = "", front: str = "") -> None:
        """`key`: see the attribute. `front`: name of this server in a chain of fronts."""
        self.address = address
        self.front = front
        self.key = key
        """API key for the next requests; empty for none."""
        self._timeouts = timeouts
        self._tls = ssl.create_default_context() if address.tls else None
        self._idle: list[OutgoingConnection] = []
        self._headers: Headers = [
            (b"host", address.authority.encode()),
            (b"user-agent", b"responsed"),
            (b"accept", b"application/json, text/event-stream"),
            (b"accept-encoding", b"identity"),
            (b"content-type", b"application/json"),
        ]

    @asynccontextmanager
    async def request(
        self, method: str, target: str, body: bytes = b"", fronts: Sequence[str] = ()
    ) -> AsyncIterator[UpstreamAnswer]:
        """Send a request, and yield the answer. Leaving the block before the answer's end closes the connection.

        `fronts`: names of the fronts before this one. Raises UpstreamFault, also for any status but 200.
        """
        headers = [*self._headers, (FRONTS, ", ".join([*fronts, self.front]).encode())]
        if key := self.key:
            headers.append((b"authorization", f"Bearer {key}".encode()))
        connection, answer = await self._answer(method, target, headers, body)
        try:
            await self._check(answer)
            yield answer
        except UpstreamFault as fault:
            fault.hide(key)
            raise
        finally:
            if answer.complete and connection.recycle() and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
            else:
                await connection.close()

    async def close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _check(self, answer: UpstreamAnswer) -> None:
        """Raise UpstreamFault for an answer without a body that can be used."""
        if 300 <= answer.status < 400:
            raise faults.redirected(self.address.url, answer.status, answer.location)
        if answer.status != 200:
            wait = self._timeouts.busy if answer.retry_after is None else answer.retry_after
            raise faults.refused(self.address.url, answer.status, await answer.message(), wait)
        if answer.is_encoded:
            raise faults.malformed(self.address.url, "it encodes its answer, by gzip or the like, unasked")

    async def _answer(
        self, method: str, target: str, headers: Headers, body: bytes
    ) -> tuple[OutgoingConnection, UpstreamAnswer]:
        """Send a request; repeat it once, on a new connection, if the upstream has closed an idle one meanwhile."""
        if (idle := await self._open_idle()) is not None:
            try:
                return idle, await self._sent(idle, method, target, headers, body)
            except UpstreamFault as fault:
                if fault.kind != "cut" or not idle.silent:
                    raise
        connection = await self._connected()
        return connection, await self._sent(connection, method, target, headers, body)

    async def _sent(
        self, connection: OutgoingConnection, method: str, target: str, headers: Headers, body: bytes
    ) -> UpstreamAnswer:
        """Send a request, and return its answer. Close the connection if there is none."""
        seconds, url = self._timeouts.first_byte, self.address.url
        deadline = trio.current_time() + seconds
        try:
            head = await connection.ask(method, target, headers, body, deadline)
        except BaseException as error:
            await connection.close()
            if isinstance(error, trio.TooSlowError):
                raise faults.too_slow(url, "has not begun to answer", seconds) from error
            if isinstance(error, h11.RemoteProtocolError | trio.BrokenResourceError):
                raise broken(url, connection, error) from error
            raise
        return UpstreamAnswer(url, connection, head, deadline, seconds, self._timeouts.idle)

    async def _open_idle(self) -> OutgoingConnection | None:
        """Return an idle connection that the upstream has not closed yet; None if there is none."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            await connection.close()
        return None

    async def _connected(self) -> OutgoingConnection:
        address, seconds = self.address, self._timeouts.connect
        try:
            with trio.fail_after(seconds):
                return await connect(address.host, address.port, self._tls)
        except trio.TooSlowError as error:
            raise faults.unreachable(address.url, f"no connection within {seconds:g} s") from error
        except OSError as error:
            raise faults.unreachable(address.url, _reason(error)) from error


def _reason(error: OSError) -> str:
    """Return the reason of a failed connection; trio tries all addresses of a name, and groups their errors."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    if found.errno and found.errno > 0:  # trio's text repeats the address; errors of names have negative numbers
        return os.strerror(found.errno)
    return found.strerror or str(error)
