"""One request to another server of the same database, by HTTP/1.1 over h11 and trio, on a connection of its own."""

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from urllib.parse import urlsplit

import h11
import trio

from server.http import Headers, OutgoingConnection, TLSFailed, connect

RELAYED = b"x-responsed-relayed"
"""Header of a request that was relayed once: no server relays it again."""
CONNECT_SECONDS = 3.0
HEAD_SECONDS = 15.0
"""Seconds until the head of the answer: a cancelled response ends within a step of the model."""
BODY_SECONDS = 15.0
"""Seconds without a byte of an answer in one piece after which its server counts as dead. One whose machine loses its
power closes no connection."""
MAX_BODY_BYTES = 256 << 20
"""Bytes of an answer in one piece at most."""


class PeerFailure(Exception):
    """The server does not answer, or its answer ended early. The message is the end of a sentence about it."""


class PeerAnswer:
    """Head and body of an answer."""

    def __init__(self, connection: OutgoingConnection, head: h11.Response) -> None:
        self._connection = connection
        self.status: int = head.status_code
        self.headers: Headers = [(bytes(name), bytes(value)) for name, value in head.headers]

    async def chunk(self, deadline: float = math.inf) -> bytes:
        """Return the next bytes of the body; none at its end. Raises PeerFailure if they do not come."""
        try:
            return await self._connection.data(deadline)
        except trio.TooSlowError as error:
            raise PeerFailure("the rest of its answer does not come") from error
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise PeerFailure("its answer ended early") from error

    async def body(self) -> bytes:
        """Return the whole body. Raises PeerFailure."""
        body = bytearray()
        while chunk := await self.chunk(trio.current_time() + BODY_SECONDS):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise PeerFailure("its answer is too large")
        return bytes(body)


@asynccontextmanager
async def ask(url: str, method: str, target: str, headers: Headers) -> AsyncIterator[PeerAnswer]:
    """Send a request without a body; yield its answer. Raises PeerFailure."""
    parts = urlsplit(url)
    with trio.move_on_after(CONNECT_SECONDS) as scope:
        connection = await _connected(parts.scheme, parts.hostname or "", parts.port)
    if scope.cancelled_caught:
        raise PeerFailure("it cannot be reached in time")
    try:
        fixed = [(b"host", parts.netloc.encode()), (b"connection", b"close"), (RELAYED, b"1")]
        head = await _head(connection, method, parts.path.rstrip("/") + target, [*fixed, *headers])
        yield PeerAnswer(connection, head)
    finally:
        await connection.close()


async def _connected(scheme: str, host: str, port: int | None) -> OutgoingConnection:
    encrypted = scheme == "https"
    try:
        return await connect(host, port or (443 if encrypted else 80), _tls() if encrypted else None)
    except TLSFailed as error:
        raise PeerFailure(error.strerror) from error
    except OSError as error:
        raise PeerFailure(f"it cannot be reached ({error})") from error


async def _head(connection: OutgoingConnection, method: str, target: str, headers: Headers) -> h11.Response:
    """Send a request and return the head of the answer. Raises PeerFailure."""
    try:
        return await connection.ask(method, target, headers, b"", trio.current_time() + HEAD_SECONDS)
    except trio.TooSlowError as error:
        raise PeerFailure("it does not answer in time") from error
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise PeerFailure("its answer ended early") from error


@cache
def _tls() -> ssl.SSLContext:
    """Return the system's certificates, which are read once."""
    return ssl.create_default_context()
