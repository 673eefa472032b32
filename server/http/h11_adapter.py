"""Adapter of h11: linear patterns, strict ends of lines, and heads without its checks of every field."""

import logging
import re
from collections.abc import Sequence
from email.utils import formatdate
from functools import cache, lru_cache
from time import time

import h11
import h11._abnf
import h11._readers
import h11._receivebuffer
import h11._version

TESTED = "0.16."
"""Beginning of the h11 versions whose private patterns are known; pyproject.toml allows no others."""
_TARGET = re.compile(h11._abnf.request_target)
"""Target of a request (RFC 9112, 3.2)."""
FRAMING = (b"connection", b"content-length", b"transfer-encoding", b"upgrade")
"""Fields of a response by which h11 follows the state of a connection."""

_BARE_LF = re.compile(rb"(?<!\r)\n")

log = logging.getLogger("responsed.http")


class _StrictLines(h11._receivebuffer.ReceiveBuffer):
    """Buffer that refuses a bare LF in a head or in trailers.

    Servers disagree on whether it ends a line, and request smuggling exploits that.
    """

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines before the first empty one; None until that has come. Raises h11.LocalProtocolError."""
        if not self._data.startswith(b"\r\n"):
            begin = max(0, self._multiple_lines_search - 1)  # h11 has searched the bytes before
            end = self._data.find(b"\r\n\r\n", begin)
            if _BARE_LF.search(self._data, begin, len(self._data) if end < 0 else end):
                raise h11.LocalProtocolError("a line ends in a bare LF; it must end in CRLF")
        return super().maybe_extract_lines()


def server_wire(max_head_bytes: int) -> h11.Connection:
    """Return a connection for requests whose lines end in CRLF."""
    wire = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes)
    wire._receive_buffer = _StrictLines()
    return wire


@cache
def patch() -> None:
    """Make h11's patterns for header fields and chunk headers possessive, once a process.

    h11 0.16 tries every division of a run of blanks: a line of 60 kB of blanks, followed by a byte that the pattern
    does not allow, stops the event loop for ten seconds. A possessive pattern matches the run without backtracking.
    Other releases of h11 stay unpatched, with a warning.
    """
    if not h11._version.__version__.startswith(TESTED):
        log.warning(
            "h11 %s is not patched against slow header lines; install h11 %s*", h11._version.__version__, TESTED
        )
        return
    h11._readers.header_field_re = re.compile(h11._abnf.header_field.replace(r":[ \t]*", r":[ \t]*+").encode())
    h11._readers.chunk_header_re = re.compile(h11._abnf.chunk_header.replace(r";.*", r";[^\r\n]*+").encode())


def request_head(method: str, target: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the head of a request, whose first field should be Host. Raises h11.LocalProtocolError."""
    if not _TARGET.fullmatch(target):
        raise h11.LocalProtocolError(f"{target!r} is no target of a request")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), target.encode(), _lines(headers))


def expect_answer(wire: h11.Connection, method: str) -> None:
    """Make `wire` read the answer to a request that it has not sent: it needs only the method (RFC 9112, 6.3).

    So it works while the server reads the request.
    """
    wire.send(_sent_request(method))
    wire.send(h11.EndOfMessage())


def response_head(wire: h11.Connection, status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the head of a response, with its Date; `wire` counts it as sent. Raises h11.LocalProtocolError."""
    fields = [*headers, (b"date", _date(int(time())))]
    lines = _lines([field for field in fields if field[0] not in FRAMING])  # h11 checks each field three times
    head = wire.send(_response(status, tuple(field for field in fields if field[0] in FRAMING)))
    assert head is not None, "h11 has bytes for each head"
    return head[:-2] + lines + b"\r\n"


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the lines of header fields. Raises h11.LocalProtocolError for a line that would be two."""
    lines = b"".join([b"%b: %b\r\n" % field for field in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        raise h11.LocalProtocolError("a header field has a line break or a NUL")  # RFC 9110, 5.5
    return lines


@cache
def _sent_request(method: str) -> h11.Request:
    return h11.Request(method=method, target="/", headers=[(b"host", b"")])


@lru_cache
def _response(status: int, framing: tuple[tuple[bytes, bytes], ...]) -> h11.Response:
    """Return a response for h11, which checks its fields once."""
    return h11.Response(status_code=status, headers=list(framing))


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """Return the value of Date (RFC 9110, 6.6.1)."""
    return formatdate(second, usegmt=True).encode()
