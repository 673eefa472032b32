"""Head and body of an upstream's answer, within its limits of time."""

from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import time

import h11
import trio

from server.http import OutgoingConnection
from server.upstream.transport import faults
from server.upstream.transport.faults import UpstreamFault

MAX_ERROR_BYTES = 1 << 16
"""Bytes of an error's body that are read."""
DRAIN_SECONDS = 1.0
"""Seconds for the end of a body after the last event that matters, and for the text of an error."""


class UpstreamAnswer:
    def __init__(
        self,
        url: str,
        connection: OutgoingConnection,
        head: h11.Response,
        deadline: float,
        first_byte: float,
        idle: float,
    ) -> None:
        """`deadline`: for the first byte of the body, `first_byte` seconds after the request."""
        self._url = url
        self._connection = connection
        self._deadline: float | None = deadline
        """None once the body has begun."""
        self._first_byte = first_byte
        self._idle = idle
        self._headers = {name.lower(): value for name, value in head.headers}
        self.status: int = head.status_code
        self.complete = False
        """True once the whole body was read."""

    @property
    def content_type(self) -> str:
        return self._header(b"content-type").partition(";")[0].strip().lower()

    @property
    def is_encoded(self) -> bool:
        return self._header(b"content-encoding").lower() not in ("", "identity")

    @property
    def location(self) -> str:
        return self._header(b"location")

    @property
    def retry_after(self) -> float | None:
        """Seconds that the upstream asks to wait (RFC 9110, 10.2.3). A date is one of its own clock."""
        value = self._header(b"retry-after")
        if value.isascii() and value.isdigit():
            return float(value[:9])
        until, now = _seconds(value), _seconds(self._header(b"date"))
        return None if until is None else max(until - (time() if now is None else now), 0.0)

    def _header(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("latin-1").strip()

    async def data(self) -> bytes:
        """Return the next bytes of the body; none at its end. Raises UpstreamFault."""
        deadline = trio.current_time() + self._idle if self._deadline is None else self._deadline
        try:
            data = await self._connection.data(deadline)
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
            raise broken(self._url, self._connection, error) from error
        except trio.TooSlowError as error:
            if self._deadline is None:
                raise faults.too_slow(self._url, "sent nothing", self._idle) from error
            raise faults.too_slow(self._url, "has not begun to answer", self._first_byte) from error
        self._deadline = None
        self.complete = not data
        return data

    async def read(self, most: int) -> bytes:
        """Return the body, or its first `most` bytes. Raises UpstreamFault."""
        body = bytearray()
        while len(body) < most and (data := await self.data()):
            body += data
        return bytes(body[:most])

    async def message(self) -> str:
        """Return the error's message in the body, if that is there soon; empty if there is none that can be read."""
        body = b""
        with trio.move_on_after(min(DRAIN_SECONDS, self._idle)), suppress(UpstreamFault):
            while len(body) < MAX_ERROR_BYTES and (data := await self.data()):
                body += data
        return "" if self.is_encoded else faults.message_of(body[:MAX_ERROR_BYTES])

    async def drain(self) -> None:
        """Read the rest of the body if it is there soon, so that the connection can be used again."""
        with trio.move_on_after(DRAIN_SECONDS), suppress(UpstreamFault):
            while not self.complete:
                await self.data()


def broken(url: str, connection: OutgoingConnection, error: Exception) -> UpstreamFault:
    """Return the fault of a connection that the upstream has closed, or on which it sends something else than HTTP."""
    if connection.closed or isinstance(error, trio.BrokenResourceError):
        return faults.cut(url, str(error) or "the connection broke")
    return faults.malformed(url, f"it sends no HTTP/1.1 ({error})")


def _seconds(date: str) -> float | None:
    """Return the time of an HTTP date; None if it is none."""
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
