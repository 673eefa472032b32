"""One HTTP request and its response, over ASGI. A frame passed to one `send` arrives in one piece."""

import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from os import urandom
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import trio

from server.access import ANYBODY, FRONTS, fronts, trace_id
from server.http.disconnect_watch import DisconnectWatch
from server.protocol.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    MethodNotAllowed,
    Unauthorized,
    Unavailable,
    UnsupportedEncoding,
    UnsupportedMediaType,
    UpgradeRequired,
)
from server.websocket import WebSocket, WebSocketLimits, accept_headers

Scope: TypeAlias = Mapping[str, Any]  # ASGI's types are untyped dicts; only this folder uses them
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]
Upgrade: TypeAlias = Callable[[Headers, WebSocketLimits], Awaitable[WebSocket]]
"""Extension `upgrade` of the scope: sends the 101 response with these headers."""
Received: TypeAlias = Callable[[], tuple[bytes, bool]]
"""Extension `received` of the scope: returns the part of the body that has come, and True if more follows."""

JSON: Headers = [(b"content-type", b"application/json")]
EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # otherwise nginx buffers frames up to 4 kB
]


class ClientDisconnected(Exception):
    """The client disconnected before its request was complete."""


class Exchange:
    """A request and its response; each can be read or sent once."""

    transport = ""
    """Name of the transport in the log; empty for HTTP."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, id_: str) -> None:
        self.id = id_
        self.began = time.perf_counter()
        """Time at which the head of the request was read."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.target: str = scope["raw_path"].decode("ascii")
        """Encoded path, for the log: the decoded one may contain line breaks."""
        self.query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
        self.status = 0
        self.reserved = 0
        """Bytes of memory reserved for the body."""
        self.caller = ANYBODY
        """Owner of the request's API key."""
        self.client_request_id = ""
        """Value of X-Client-Request-Id, once it is checked."""
        self.skipped: tuple[str, ...] = ()
        """Parts of the request that had no effect, for the log."""
        self.route = "other"
        """Path of the router, for the metrics."""
        self.starts_generation = False
        """True if a generation logs the outcome."""
        self.outcome = ""
        """Final status of the response, for the log: failed streams have the HTTP status 200 too."""
        self._scope = scope
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._received: Received = scope.get("extensions", {}).get("received", lambda: (b"", True))
        self._body_ended = False
        self._extra: Headers = []
        self._error_frames: Callable[[ApiError], bytes] | None = None
        self.watch = DisconnectWatch(receive)

    @property
    def client(self) -> str:
        """Identity of the client: the name of its API key, else its address with a hash of its Authorization header.

        An unchecked header alone would not do, since many clients send the same key; the hash conceals the secret.
        """
        if self.caller.name:
            return self.caller.name
        address: str = (self._scope.get("client") or ("",))[0]
        key = self._headers.get(b"authorization")
        return address if key is None else f"{address} {sha256(key).hexdigest()[:16]}"

    @property
    def client_name(self) -> str:
        """Name of the client for the log: of its API key, or its address."""
        return self.caller.name or (self._scope.get("client") or ("-",))[0]

    @property
    def disconnect_reason(self) -> str:
        """Reason of the disconnect, for the log."""
        return self.watch.reason

    @property
    def trace_id(self) -> str:
        """Trace id of the caller; empty if it gives none."""
        return trace_id(self.header(b"traceparent"))

    @property
    def fronts(self) -> tuple[str, ...]:
        """Names of the fronts that the request has passed."""
        return fronts(self.header(FRONTS))

    @property
    def is_codex(self) -> bool:
        """True for a client that counts events as signs of life and ignores comments (openai/codex)."""
        return (self.header(b"originator") or self.header(b"user-agent") or "").startswith("codex")

    def header(self, name: bytes) -> str | None:
        """Return the value of a header by its name in lower case; None if the request does not have it."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def allow_origin(self, origin: str) -> None:
        """Add the headers that let pages of the origin read the response (Fetch standard, "CORS protocol")."""
        self._extra = [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"retry-after, x-request-id"),
            (b"vary", b"Origin"),
        ]
        if self.method == "OPTIONS":
            self._extra += [
                (b"access-control-allow-methods", b"GET, POST, DELETE"),
                (
                    b"access-control-allow-headers",
                    (self.header(b"access-control-request-headers") or "").encode("latin-1"),
                ),
            ]

    async def body(self, limit: int, gap_seconds: float, total_seconds: float, reserve: Callable[[int], None]) -> bytes:
        """Return the whole body. Call `reserve` with each number of bytes that arrives; it may raise an error.

        Announced bytes are not reserved, so a client that never sends them blocks no other request.

        Raises BodyTooLarge, BodyTimeout, UnsupportedEncoding, UnsupportedMediaType, ClientDisconnected.
        """
        encoding = self.header(b"content-encoding") or "identity"
        if encoding.strip().lower() != "identity":
            raise UnsupportedEncoding(
                f"Content-Encoding {encoding!r} is not supported; send the body without an encoding."
            )
        self._check_media_type()
        deadline = trio.current_time() + total_seconds
        part, more = self._received()  # without the cost of a time limit: most bodies come with their heads
        body, self._body_ended = bytearray(part), not more
        announced = int(self._headers.get(b"content-length", b"0"))
        while max(len(body), announced) <= limit:
            reserve(len(body) - self.reserved)
            self.reserved = len(body)
            if self._body_ended:
                return bytes(body)
            try:
                with trio.fail_at(deadline):
                    body += await self._more(gap_seconds)
            except trio.TooSlowError as error:
                raise BodyTimeout(
                    f"The body did not arrive within {total_seconds:g} s; send it faster, or a smaller one, or start "
                    "the server with a larger --body-timeout."
                ) from error
        raise BodyTooLarge(
            f"The body is larger than {limit} bytes; send a smaller one, or start the server with --max-body-megabytes."
        )

    async def accept_websocket(self, limits: WebSocketLimits) -> WebSocket:
        """Switch the connection to WebSocket. Raises UpgradeRequired, InvalidRequest."""
        headers = accept_headers(self._scope["http_version"], self._scope["headers"])
        upgrade: Upgrade = self._scope["extensions"]["upgrade"]
        socket = await upgrade([*headers, (b"x-request-id", self.id.encode())], limits)
        self.status = 101
        return socket

    async def answer(self, status: int, body: bytes, headers: Headers = JSON) -> None:
        """Send the whole response."""
        length = [] if status in (204, 304) else [(b"content-length", b"%d" % len(body))]  # RFC 9110, 8.6
        await self._start(status, [*headers, *length])
        await self.close(b"" if self.method == "HEAD" else body)

    async def send_error(self, error: ApiError) -> None:
        """Send the error as a response of its own, or as the end of a stream that has started."""
        if self._error_frames is not None:
            return await self.close(self._error_frames(error))
        return await self.answer(error.status, error.body(), [*JSON, *_error_headers(error)])

    async def start_stream(self, error_frames: Callable[[ApiError], bytes]) -> None:
        """Begin a stream; its head leaves with the first `send`. `error_frames` makes the frames of `send_error`."""
        self._error_frames = error_frames
        await self._start(200, EVENT_STREAM)

    async def send(self, frames: bytes) -> None:
        await self._send({"type": "http.response.body", "body": frames, "more_body": True})

    async def close(self, last: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        headers = [*headers, (b"x-request-id", self.id.encode()), *self._extra]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _check_media_type(self) -> None:
        """Raise UnsupportedMediaType for a body that is not JSON: web pages may send other types without CORS."""
        media_type = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        empty = self.header(b"content-length") in (None, "0") and b"transfer-encoding" not in self._headers
        if media_type != "application/json" and not empty:
            raise UnsupportedMediaType(
                f"Media type {media_type or 'none'!r} is not supported; send JSON with `Content-Type: "
                f"application/json`."
            )

    async def _more(self, gap_seconds: float) -> bytes:
        try:
            with trio.fail_after(gap_seconds):
                message = await self._receive()
        except trio.TooSlowError as error:
            raise BodyTimeout(f"No part of the body arrived for {gap_seconds:g} s; send it without pauses.") from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self._body_ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk


def new_request_id() -> str:
    """Return the id of a request, for the log and `x-request-id`."""
    return f"req_{urandom(16).hex()}"


def _error_headers(error: ApiError) -> Headers:
    match error:
        case MethodNotAllowed():
            return [(b"allow", error.allow.encode())]
        case UpgradeRequired():
            return [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
        case Unauthorized():
            return [(b"www-authenticate", b'Bearer realm="responsed"')]  # RFC 6750, 3
        case Unavailable():
            return [(b"retry-after", b"%d" % error.retry_after)]
    return []
