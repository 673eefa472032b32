"""Heads of requests: a filter before h11, checks after it, and the ASGI scope (RFC 9112)."""

import re
from urllib.parse import unquote

import h11

from server.http.exchange import Headers, Scope

_BARE_LF = re.compile(rb"[^\r]\n")
_ABSOLUTE = re.compile(rb"https?://", re.IGNORECASE)
"""Beginning of a target in absolute form (RFC 9112, 3.2.2)."""


SINGLE = (b"authorization", b"origin", b"content-type", b"content-encoding")
"""Headers that decide about a request, and of which it may have one; h11 checks Host and Content-Length."""


class HeadFilter:
    """Filter between the socket and h11, from the end of a request to the end of the next request's head."""

    def __init__(self) -> None:
        self._before_request = True
        """True until the first byte of the request; one empty line may precede it (RFC 9112, 2.2)."""
        self._pending = b""
        """Carriage return that may begin an empty line."""
        self._ends_in_cr = False

    def feed(self, data: bytes, in_head: bool) -> bytes:
        """Return the part of `data` for h11, without an empty line before a request.

        Raises h11.RemoteProtocolError for a bare LF in a head. Servers disagree on whether it ends a line, and
        request smuggling exploits that.
        """
        data, self._pending = self._pending + data, b""
        if self._before_request and data == b"\r":
            self._pending = data
            return b""
        if self._before_request and data[:2] == b"\r\n":
            data = data[2:]
        if in_head and data:
            head = data.partition(b"\r\n\r\n")[0]
            if _BARE_LF.search(head) or (head[:1] == b"\n" and not self._ends_in_cr):
                raise h11.RemoteProtocolError("a line ends in a bare LF; it must end in CRLF")
            self._ends_in_cr = data[-1:] == b"\r"
        self._before_request = False
        return data


def checked_headers(request: h11.Request, max_bytes: int) -> Headers:
    """Return the headers. Raises h11.RemoteProtocolError for heads that h11 accepts and this server refuses."""
    if not request.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError(f"HTTP/{request.http_version.decode()} is not supported; use HTTP/1.1", 505)
    headers = [(name.lower(), value) for name, value in request.headers.raw_items()]  # its own sequence is slow
    if len(request.target) + sum(len(name) + len(value) for name, value in headers) > max_bytes:
        raise h11.RemoteProtocolError(f"its head has more than {max_bytes} bytes", 431)
    names = [name for name, _ in headers]
    if twice := next((name for name in SINGLE if names.count(name) > 1), None):
        # A proxy may have checked the other one (RFC 9110, 5.3).
        raise h11.RemoteProtocolError(f"it has the header {twice.decode()} twice; send it once")
    if {b"transfer-encoding", b"content-length"} <= set(names):
        # A proxy may have used the other header to find the end of the body (RFC 9112, 6.1).
        raise h11.RemoteProtocolError("it has Content-Length and Transfer-Encoding; send one of them")
    return headers


def asgi_scope(request: h11.Request, headers: Headers, client: tuple[str, int], scheme: str) -> Scope:
    target = request.target
    if absolute := _ABSOLUTE.match(target):
        target = b"/" + target[absolute.end() :].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": scheme,
        "path": unquote(path.decode()),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "client": client,
    }
