"""Bodies of requests: how many bytes they may have, alone and together, and as which JSON they are read."""

import codecs
import re

import trio

from server.http.exchange import Exchange
from server.protocol.errors import InvalidRequest, Unavailable

LARGE_BYTES = 1 << 18
"""Larger bodies are cleaned outside the event loop: they take more than a millisecond."""
TOGETHER = 2
"""How many bodies of the largest size may be in memory at the same time."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Each escape of a JSON text, whole: a backslash that is escaped itself begins none."""


class Bodies:
    def __init__(self, limit: int, gap_seconds: float) -> None:
        """`limit`: bytes of one body. `gap_seconds`: the longest silence while one arrives."""
        self._limit = limit
        self._gap_seconds = gap_seconds
        self._room = TOGETHER * limit
        """Bytes that more bodies may have now."""

    async def read(self, exchange: Exchange) -> bytes:
        """The body, cleaned. Its bytes count until `release`. Raises ApiError."""
        body = await exchange.body(self._limit, self._gap_seconds, self._reserve)
        if len(body) > LARGE_BYTES:
            return await trio.to_thread.run_sync(clean, body)
        return clean(body)

    def release(self, exchange: Exchange) -> None:
        """The exchange has ended, and with it what was made of its body."""
        self._room += exchange.reserved

    def _reserve(self, size: int) -> None:
        """Raises Unavailable."""
        if size > self._room:
            raise Unavailable("The bodies of other requests fill the memory for bodies: try again in a second.")
        self._room -= size


def clean(body: bytes) -> bytes:
    """JSON that every decoder here reads: without a byte order mark, and with U+FFFD for each surrogate that stands
    alone in an escape (RFC 8259, 8.1 and 8.2). Raises InvalidRequest where it isn't UTF-8."""
    body = body.removeprefix(codecs.BOM_UTF8).strip()
    try:
        body.decode()  # msgspec does not look into the texts that it skips
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8: byte {error.start} is {body[error.start]:#04x}.") from error
    return _ESCAPES.sub(_replace_lone, body) if _SURROGATE.search(body) else body


def _replace_lone(match: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if match["lone"] else match[0]
