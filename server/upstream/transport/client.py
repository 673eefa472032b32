"""HTTP client of one upstream: a pool of idle connections, TLS, and a limit for each wait."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import time
from typing import TypeVar

import h11
import trio
from msgspec import Struct

from server.http import Headers, OutgoingConnection, connect
from server.upstream.transport import faults
from server.upstream.transport.address import Address
from server.upstream.transport.faults import UpstreamFault

MAX_IDLE = 64
"""Number of idle connections."""
MAX_ERROR_BYTES = 1 << 16
"""Bytes of an error's body that are read."""
DRAIN_SECONDS = 1.0
"""Seconds for the end of a body after the last event that matters."""
T = TypeVar("T")


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


class UpstreamAnswer:
    """Head and body of an answer."""

    def __init__(
        self, url: str, connection: OutgoingConnection, head: h11.Response, deadline: float, idle: float
    ) -> None:
        self._url = url
        self._connection = connection
        self._deadline = deadline
        self._idle = idle
        self._headers = {name.lower(): value for name, value in head.headers}
        self.status: int = head.status_code
        self.complete = False
        """True once the whole body was read."""

    @property
    def content_type(self) -> str:
        return self._headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> float | None:
        """Seconds that the upstream asks to wait (RFC 9110, 10.2.3)."""
        value = self._headers.get(b"retry-after", b"").decode("latin-1").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        return max((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time(), 0.0)

    async def data(self) -> bytes:
        """Return the next bytes of the body; none at its end. Raises UpstreamFault."""
        try:
            with trio.fail_at(self._deadline):
                data = await self._connection.data()
        except trio.TooSlowError as error:
            raise faults.too_slow(self._url, "sent nothing", self._idle) from error
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
            raise faults.cut(self._url, str(error) or "the connection broke") from error
        self._deadline = trio.current_time() + self._idle
        self.complete = not data
        return data

    async def read(self, most: int) -> bytes:
        """Return the body, or its first `most` bytes. Raises UpstreamFault."""
        body = b""
        while len(body) < most and (data := await self.data()):
            body += data
        return body[:most]

    async def drain(self) -> None:
        """Read the rest of the body if it is there soon, so that the connection can be used again."""
        with trio.move_on_after(DRAIN_SECONDS), suppress(UpstreamFault):
            while not self.complete:
                await self.data()


class UpstreamClient:
    def __init__(self, address: Address, timeouts: ClientTimeouts, key: str = "") -> None:
        """`key`: API key for the upstream; empty for none."""
        self.address = address
        self._timeouts = timeouts
        self._tls = ssl.create_default_context() if address.tls else None
        self._idle: list[OutgoingConnection] = []
        self._headers: Headers = [
            (b"host", address.authority.encode()),
            (b"user-agent", b"responsed"),
            (b"accept", b"application/json, text/event-stream"),
            (b"content-type", b"application/json"),
            *([(b"authorization", f"Bearer {key}".encode())] if key else []),
        ]

    @asynccontextmanager
    async def request(self, method: str, target: str, body: bytes = b"") -> AsyncIterator[UpstreamAnswer]:
        """Send a request, and yield the answer. Leaving the block before the answer's end closes the connection.

        Raises UpstreamFault, also for any status but 200.
        """
        connection, answer = await self._answer(method, target, body)
        try:
            if answer.status != 200:
                text = (await answer.read(MAX_ERROR_BYTES)).decode(errors="replace")
                wait = self._timeouts.busy if answer.retry_after is None else answer.retry_after
                raise faults.refused(self.address.url, answer.status, faults.message_of(text), wait)
            yield answer
        finally:
            if answer.complete and connection.recycle() and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
            else:
                await connection.close()

    async def close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _answer(self, method: str, target: str, body: bytes) -> tuple[OutgoingConnection, UpstreamAnswer]:
        """Send a request; repeat it on a new connection if the upstream has closed an idle one meanwhile."""
        while True:
            connection = await self._connection()
            try:
                return connection, await self._sent(connection, method, target, body)
            except BaseException as error:
                await connection.close()
                if not (isinstance(error, UpstreamFault) and error.kind == "cut" and connection.used):
                    raise

    async def _sent(self, connection: OutgoingConnection, method: str, target: str, body: bytes) -> UpstreamAnswer:
        seconds, url = self._timeouts.first_byte, self.address.url
        deadline = trio.current_time() + seconds
        try:
            with trio.fail_at(deadline):
                await connection.send(method, target, self._headers, body)
                head = await connection.head()
        except trio.TooSlowError as error:
            raise faults.too_slow(url, "has not begun to answer", seconds) from error
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
            raise faults.cut(url, str(error) or "the connection broke") from error
        return UpstreamAnswer(url, connection, head, deadline, self._timeouts.idle)

    async def _connection(self) -> OutgoingConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            await connection.close()
        return await self._connected()

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
