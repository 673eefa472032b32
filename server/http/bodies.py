"""Bodies of requests: limits of their bytes, alone and together, and the clean-up before JSON is decoded."""

import codecs
import math
import re
from collections.abc import Iterator

from server.http.exchange import Exchange
from server.http.json_depth import is_deeper
from server.protocol.errors import BodyTooLarge, InvalidRequest, Unavailable
from server.work_thread import WorkThread

BODIES_IN_MEMORY = 2
"""Number of bodies of the largest size that may be in memory at the same time."""

_SURROGATES = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>[89a-fA-F][0-9a-fA-F]{2}))"
)
"""Pattern of a pair of surrogates or of a lone one, if its first backslash is not escaped itself."""
MAX_JSON_DEPTH = 64
"""Levels of nesting of a body; the deepest schemas of real tools have 15."""
BACKSLASH = ord("\\")


class Bodies:
    def __init__(
        self,
        limit: int,
        gap_seconds: float,
        work: WorkThread,
        total_seconds: float = math.inf,
        max_depth: int = MAX_JSON_DEPTH,
    ) -> None:
        """Accept bodies of `limit` bytes that arrive within `total_seconds`, with pauses of `gap_seconds` at most."""
        self._work = work
        self.limit = limit
        self._total_seconds = total_seconds
        self._max_depth = max_depth
        self._gap_seconds = gap_seconds
        self._occupied = 0
        """Bytes of the bodies in memory."""

    async def read(self, exchange: Exchange) -> bytes:
        """Return the cleaned body. Its bytes count as occupied until `free`. Raises ApiError."""
        body = await exchange.body(self.limit, self._gap_seconds, self._total_seconds, self._reserve)
        return await self._work.run(len(body), clean, body, self._max_depth)

    def reload(self, limit: int, total_seconds: float, max_depth: int) -> None:
        """Apply other limits to the next bodies."""
        self.limit, self._total_seconds, self._max_depth = limit, total_seconds, max_depth

    async def cleaned(self, message: bytes) -> bytes:
        """Return the cleaned message of a WebSocket. Raises InvalidRequest."""
        return await self._work.run(len(message), clean, message, self._max_depth)

    def reserve(self, size: int, total: int) -> None:
        """Count `size` more bytes of a message that has `total` bytes then. Raises BodyTooLarge, Unavailable."""
        if total > self.limit:
            raise BodyTooLarge(f"The message is larger than {self.limit} bytes.")
        self._reserve(size)

    def free(self, size: int) -> None:
        """Free reserved bytes."""
        self._occupied -= size

    def _reserve(self, size: int) -> None:
        """Raise Unavailable if the bytes are not free."""
        if self._occupied + size > BODIES_IN_MEMORY * self.limit:
            raise Unavailable("The bodies of other requests fill the memory for bodies; try again in a second.")
        self._occupied += size


def clean(body: bytes, max_depth: int = MAX_JSON_DEPTH) -> bytes:
    """Return JSON that every decoder here accepts (RFC 8259, 8.1 and 8.2).

    Remove the byte order mark, and replace each escape of a lone surrogate by U+FFFD. Raises InvalidRequest if the body
    is not UTF-8 or is nested deeper than `max_depth` levels.
    """
    body = body.removeprefix(codecs.BOM_UTF8).strip()
    try:
        body.decode()  # msgspec does not validate the texts that it skips
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not UTF-8: byte {error.start} is {body[error.start]:#04x}; encode the JSON in UTF-8."
        ) from error
    if is_deeper(body, max_depth):
        raise InvalidRequest(
            f"The body is nested deeper than {max_depth} levels; flatten it, or raise the limit with --max-json-depth.",
            code="json_too_deep",
        )
    return b"".join(_without_lone_surrogates(body))


def _without_lone_surrogates(body: bytes) -> Iterator[bytes]:
    """Yield the parts of the body. A call into `re` ends at each surrogate, so other threads do not wait for long."""
    begin = place = 0
    while match := _SURROGATES.search(body, place):
        if _is_escaped(body, match.start()):
            place = match.start() + 1
            continue
        place = match.end()
        if match["lone"]:
            yield body[begin : match.start()]
            yield b"\\ufffd"
            begin = place
    yield body[begin:]


def _is_escaped(body: bytes, place: int) -> bool:
    """True if an odd number of backslashes stands before the one at `place`."""
    first = place
    while first and body[first - 1] == BACKSLASH:
        first -= 1
    return (place - first) % 2 == 1
