"""One HTTP request and its answer, over ASGI's receive and send: the only caller of both.

Only a task that waits in `receive()` sees a hang-up; `send()` does not tell of one. A frame that leaves in one `send`
arrives in one piece.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import trio

from server.protocol.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    MethodNotAllowed,
    Unavailable,
    UnsupportedEncoding,
    UnsupportedMediaType,
)

Scope: TypeAlias = Mapping[str, Any]  # ASGI's own types are dicts of anything; they end in this file
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]
EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx keeps the frames until it has 4 kB of them
]


class ClientDisconnected(Exception):
    """The client left before its request was complete."""


class Exchange:
    """A request to read once and to answer once."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, id_: str) -> None:
        self.id = id_
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.target: str = scope["raw_path"].decode("ascii")
        """The path as it was sent: for the log, since the decoded one may hold line breaks."""
        self.query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
        self.status = 0
        self.reserved = 0
        """Bytes of memory that count for its body."""
        self.skipped: tuple[str, ...] = ()
        """Parts of the request that had no effect, for the log."""
        self.outcome = ""
        """How a response ended, for the log: a stream that failed has the status 200 too."""
        self._scope = scope
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._body_ended = False
        self._extra: Headers = []
        self._last_words: Callable[[ApiError], bytes] | None = None

    @property
    def client(self) -> str:
        """Who asks, as far as can be told: who sends the same Authorization from the same address.

        Both, for as long as no key is checked here: half of the world says "none". Hashed, since it is a secret.
        """
        address: str = (self._scope.get("client") or ("",))[0]
        key = self._headers.get(b"authorization")
        return address if key is None else f"{address} {sha256(key).hexdigest()[:16]}"

    def header(self, name: bytes) -> str | None:
        """Value of a header, by its name in lower case; None if there is none."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def allow_origin(self, origin: str) -> None:
        """Let a browser give the answer to pages of that origin (Fetch standard, "CORS protocol")."""
        self._extra = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
        if self.method == "OPTIONS":
            self._extra += [
                (b"access-control-allow-methods", b"GET, POST, DELETE"),
                (
                    b"access-control-allow-headers",
                    (self.header(b"access-control-request-headers") or "").encode("latin-1"),
                ),
            ]

    async def body(self, limit: int, gap_seconds: float, reserve: Callable[[int], None]) -> bytes:
        """The whole body. `reserve` is called before so many bytes more are in memory; it may refuse them.

        Raises BodyTooLarge, BodyTimeout, UnsupportedEncoding, UnsupportedMediaType, HungUp.
        """
        encoding = self.header(b"content-encoding") or "identity"
        if encoding.strip().lower() != "identity":
            raise UnsupportedEncoding(f"Bodies are read as they are; {encoding!r} is not decoded.")
        self._check_media_type()
        body, announced = bytearray(), int(self._headers.get(b"content-length", b"0"))
        while (size := max(len(body), announced)) <= limit:
            if size > self.reserved:
                reserve(size - self.reserved)
                self.reserved = size
            if self._body_ended:
                return bytes(body)
            body += await self._more(gap_seconds)
        raise BodyTooLarge(f"The body is larger than {limit} bytes.")

    async def answer(self, status: int, body: bytes, headers: Headers = JSON) -> None:
        """The whole answer at once. Nothing may follow."""
        length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]  # RFC 9110, 8.6
        await self._start(status, [*headers, *length])
        await self.close(b"" if self.method == "HEAD" else body)

    async def send_error(self, error: ApiError) -> None:
        """The error: as an answer of its own, or as the end of the stream that was begun."""
        if self._last_words is not None:
            return await self.close(self._last_words(error))
        headers = [*JSON, (b"allow", error.allow.encode())] if isinstance(error, MethodNotAllowed) else JSON
        if isinstance(error, Unavailable):
            headers = [*headers, (b"retry-after", b"%d" % error.retry_after)]
        return await self.answer(error.status, error.body(), headers)

    @asynccontextmanager
    async def until_hang_up(self) -> AsyncIterator[None]:
        """The block is cancelled when the client leaves. The body must have been read.

        `close` stands behind the block: what is sent last is not to be cut by a client that leaves on reading it.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            yield
            nursery.cancel_scope.cancel()

    async def start_stream(self, last_words: Callable[[ApiError], bytes]) -> None:
        """The head leaves with the first push. `last_words` are what `refuse` ends the stream with."""
        self._last_words = last_words
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
        """Raises UnsupportedMediaType for a body that isn't JSON: a web page may send any other one without asking."""
        media_type = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        empty = self.header(b"content-length") in (None, "0") and b"transfer-encoding" not in self._headers
        if media_type != "application/json" and not empty:
            raise UnsupportedMediaType(
                f"The body is sent as {media_type or 'no type'!r}: send JSON, with `Content-Type: application/json`."
            )

    async def _more(self, gap_seconds: float) -> bytes:
        try:
            with trio.fail_after(gap_seconds):
                message = await self._receive()
        except trio.TooSlowError as error:
            raise BodyTimeout(f"Nothing of the body arrived for {gap_seconds:g} s.") from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self._body_ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    async def _watch(self, scope: trio.CancelScope) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()
