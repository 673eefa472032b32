"""Heads of requests: what reaches h11 of them, what of h11's reading is refused, and the ASGI scope (RFC 9112)."""

import re
from urllib.parse import unquote

import h11

from server.http.exchange import Scope

_BARE_LF = re.compile(rb"[^\r]\n")


class HeadFilter:
    """Between the socket and h11, from the end of one request to the end of the next one's head."""

    def __init__(self) -> None:
        self._between = True
        """True while nothing of the request has come; one empty line may stand before it (RFC 9112, 2.2)."""
        self._pending = b""
        """A carriage return with which an empty line may begin."""
        self._ends_in_cr = False

    def feed(self, data: bytes, in_head: bool) -> bytes:
        """The part of `data` for h11, without an empty line before a request.

        Raises h11.RemoteProtocolError for a bare LF in a head: servers disagree on whether it ends a line, which is how
        requests are smuggled past one of them.
        """
        data, self._pending = self._pending + data, b""
        if self._between and data == b"\r":
            self._pending = data
            return b""
        if self._between and data[:2] == b"\r\n":
            data = data[2:]
        if in_head and data:
            head = data.partition(b"\r\n\r\n")[0]
            if _BARE_LF.search(head) or (head[:1] == b"\n" and not self._ends_in_cr):
                raise h11.RemoteProtocolError("a line ends in a bare LF; it must end in CRLF")
            self._ends_in_cr = data[-1:] == b"\r"
        self._between = False
        return data


def check(request: h11.Request) -> None:
    """What h11 takes and we don't. Raises h11.RemoteProtocolError."""
    if not request.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError(f"HTTP/{request.http_version.decode()} is not spoken here", 505)
    if {b"transfer-encoding", b"content-length"} <= {name for name, _ in request.headers}:
        # RFC 9112, 6.1: whoever stands between us and the client may have believed the other one
        raise h11.RemoteProtocolError("it has a Content-Length and a Transfer-Encoding")


def asgi_scope(request: h11.Request, client: tuple[str, int]) -> Scope:
    target = request.target
    if target[:7].lower() == b"http://":
        target = b"/" + target[7:].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(path.decode()),
        "raw_path": path,
        "query_string": query,
        "headers": list(request.headers),
        "client": client,
    }
