"""Heads of requests: a filter before h11, checks after it, and the ASGI scope (RFC 9112)."""

import re
from urllib.parse import unquote

import h11

from server.http.exchange import Headers, Scope

_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
"""Beginning of a target in absolute form (RFC 9112, 3.2.2), up to its path."""


SINGLE = (b"authorization", b"origin", b"content-type", b"content-encoding")
"""Headers that decide about a request, and of which it may have one; h11 checks Host and Content-Length."""


class FirstLine:
    """Filter between the socket and h11: one empty line may precede a request (RFC 9112, 2.2)."""

    def __init__(self) -> None:
        self._has_come = False
        """True after the first byte of the request."""
        self._pending = b""
        """Carriage return that may begin an empty line."""

    def feed(self, data: bytes) -> bytes:
        """Return the part of `data` for h11, without an empty line before a request."""
        if self._has_come:
            return data
        data, self._pending = self._pending + data, b""
        if data == b"\r":
            self._pending = data
            return b""
        self._has_come = True
        return data.removeprefix(b"\r\n")


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
    if origin := _ORIGIN.match(target):
        target = target[origin.end() :]
        target = target if target.startswith(b"/") else b"/" + target
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
