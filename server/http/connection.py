"""HTTP/1.1 on one connection, over h11: requests, one after the other, and their responses (RFC 9112).

Each connection has one task. The application runs in it and reads from the socket by `receive`. This module writes the
chunk headers of a stream itself.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import h11
import trio

from server.access import Refusal
from server.http import h11_adapter
from server.http.client_stream import DISCARD_SECONDS, ClientStream, Stream
from server.http.drain import Drain
from server.http.exchange import JSON, Headers, Receive, Scope, Send
from server.http.request_head import FirstLine, asgi_scope, checked_headers
from server.listening import HTTPOptions
from server.protocol.errors import Malformed
from server.websocket import WebSocket, WebSocketLimits

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

READ_AHEAD = 65536
"""Bytes to read beyond a request while waiting for the client to disconnect."""
MAX_FAULT_CHARACTERS = 200
"""Characters of h11's error in our message; h11 may quote a whole line."""

TOO_LARGE = 431
"""Status of a request with a head that is too large (RFC 6585, 5)."""
LARGE_HEAD = "The head is too large: send shorter headers, or start the server with a larger --max-header-kilobytes."

DEFAULT_OPTIONS = HTTPOptions()

log = logging.getLogger("responsed.http")
proxy_log = logging.getLogger("responsed.http.proxies")


class Connection:
    """Connection of a client, from accept to close. The caller closes it."""

    def __init__(self, app: Application, stream: Stream, drain: Drain, options: HTTPOptions = DEFAULT_OPTIONS) -> None:
        self._options = options
        self._app = app
        self._stream = ClientStream(stream, drain, options)
        self._drain = drain
        h11_adapter.patch()
        self._wire = self._new_wire()
        self._first_line = FirstLine()
        self._method = b""
        self._headers: Headers = []
        self._first = True
        """True before the first request."""
        self._unsent = b""
        """Head of the response, which leaves together with the first part of the body."""
        self._chunked = False
        self._fault: h11.RemoteProtocolError | None = None

    async def run(self) -> None:
        """Serve the requests. Errors end this connection only."""
        if (client := self._stream.peer) is None:
            return  # the client has already disconnected
        try:
            await self._serve_requests(client)
        except h11.RemoteProtocolError as error:
            self._fault = error
        except Exception:
            log.exception("a connection failed by an internal error")
        if self._fault is not None:
            self._count(self._refusal_of(self._fault))
            await self._send_fault(self._fault, client[0])
            await self._stream.finish()

    async def _serve_requests(self, client: tuple[str, int]) -> None:
        while (request := await self._request()) is not None:
            await self._app(self._scope(request, client), self._receive, self._send)
            await self._discard_body()
            done = self._wire.our_state is h11.DONE and self._wire.their_state is h11.DONE
            if self._stream.gone.is_set() or not done:
                return  # one side has announced the end, or has not sent its whole message
            self._next_cycle()
            await trio.lowlevel.checkpoint()  # a client may pipeline thousands of requests

    def _scope(self, request: h11.Request, peer: tuple[str, int]) -> Scope:
        """Return the request's scope, with the client and scheme that a trusted proxy names."""
        proxies, scheme = self._options.proxies, "https" if self._stream.encrypted else "http"
        if not proxies.trusts(peer[0]):
            return self._extended(asgi_scope(request, self._headers, peer, scheme))
        client = proxies.client(peer[0], self._values(b"x-forwarded-for"))
        if client.garbage:
            garbage = client.garbage[:100]
            proxy_log.warning("X-Forwarded-For from %s is ignored at %r: this is not an address", peer[0], garbage)
        scheme = proxies.scheme(peer[0], self._values(b"x-forwarded-proto"), scheme)
        address = peer if client.address == peer[0] else (client.address, 0)
        return self._extended(asgi_scope(request, self._headers, address, scheme))

    def _extended(self, scope: Scope) -> Scope:
        return {**scope, "extensions": {"upgrade": self._upgrade, "received": self._received_now}}

    def _values(self, name: bytes) -> list[bytes]:
        """Return the values of a header of the request, which may be there several times."""
        return [value for each, value in self._headers if each == name]

    def _next_cycle(self) -> None:
        """Begin the next request, parts of which may be in the buffer already."""
        trailing, closed = self._wire.trailing_data
        self._first_line = FirstLine()
        if not trailing:
            return self._wire.start_next_cycle()
        self._wire = self._new_wire()
        self._feed(trailing)
        if closed:
            self._wire.receive_data(b"")
        return None

    def _new_wire(self) -> h11.Connection:
        return h11_adapter.server_wire(self._options.limits.header_bytes)

    def _feed(self, data: bytes) -> None:
        """Pass bytes from the socket to h11."""
        if data := self._first_line.feed(data):
            self._wire.receive_data(data)

    async def _request(self) -> h11.Request | None:
        """Return the next request; None at the end of the connection. Raises h11.RemoteProtocolError."""
        event, self._method = None, b""
        with self._drain.wait_for_request(self._options.limits.idle_seconds, self._first) as waiting:
            event = await self._event()
        if self._drain.timed_out(waiting) and (self._first or self._wire.trailing_data[0]):
            self._count(Refusal.HEAD_TIMEOUT if self._wire.trailing_data[0] else Refusal.NO_REQUEST)
        self._first = False
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        self._headers = checked_headers(event, self._options.limits.header_bytes)
        return event

    async def _receive(self) -> Mapping[str, Any]:
        """Return ASGI's next message: a part of the body, or the disconnect after its end."""
        if self._wire.their_state is h11.SEND_BODY:
            try:
                body, more = await self._body()
            except h11.RemoteProtocolError as error:
                self._fault = error
            else:
                return {"type": "http.request", "body": body, "more_body": more}
        elif self._fault is None:
            while await self._read():
                if len(self._wire.trailing_data[0]) > READ_AHEAD:
                    await self._stream.gone.wait()
                    break
        return {"type": "http.disconnect", "reason": self._stream.disconnect_reason}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._unsent = self._head(message["status"], message["headers"])
            return
        body: bytes = message["body"]
        if not self._chunked:
            framed = self._wire.send(h11.Data(data=body)) or b""
        else:  # the same bytes as h11's, which needs 20 us for them (RFC 9112, 7.1)
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        end = b"" if message["more_body"] else self._wire.send(h11.EndOfMessage()) or b""
        data, self._unsent = self._unsent + framed + end, b""
        await self._stream.write(data)

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        if self._drain.closed or self._fault is not None or self._wire.they_are_waiting_for_100_continue:
            # A client that still waits for 100 (Continue) may or may not send its body (RFC 9110, 10.1.1).
            headers = [*headers, (b"connection", b"close")]
        data = h11_adapter.response_head(self._wire, status, headers)
        self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in data.lower()
        return data

    def _received_now(self) -> tuple[bytes, bool]:
        """Return the received part of the body, and True if `_receive` returns more of it, or the disconnect."""
        try:
            return self._received()
        except h11.RemoteProtocolError as error:
            self._fault = error
            return b"", True

    async def _body(self) -> tuple[bytes, bool]:
        """Wait for a part of the body; return it, and True if more follows. Raises h11.RemoteProtocolError."""
        while (part := self._received()) == (b"", True):
            await self._read_request()
        return part

    def _received(self) -> tuple[bytes, bool]:
        """Return the received part of the body, and True if more follows. Raises h11.RemoteProtocolError."""
        body = bytearray()
        while isinstance(event := self._wire.next_event(), h11.Data):
            body += event.data
        return bytes(body), event is h11.NEED_DATA

    async def _event(self) -> "h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]":
        """Return h11's next event. Raises h11.RemoteProtocolError."""
        while (event := self._wire.next_event()) is h11.NEED_DATA:
            await self._read_request()
        return event

    async def _read_request(self) -> None:
        """Read from the socket, after 100 (Continue) if the client waits for that."""
        if self._wire.they_are_waiting_for_100_continue:
            await self._stream.write(self._wire.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        await self._read()

    async def _read(self) -> bool:
        """Read from the socket once; return False at the end of the client's input."""
        data = await self._stream.read()
        if data:
            self._feed(data)
        else:
            self._wire.receive_data(b"")
        return bool(data)

    async def _upgrade(self, headers: list[tuple[bytes, bytes]], limits: WebSocketLimits) -> WebSocket:
        """Send the 101 response to a request without a body, and return the WebSocket."""
        await self._body()
        head = h11.InformationalResponse(status_code=101, headers=headers)
        await self._stream.write(self._wire.send(head) or b"")
        return WebSocket(self._stream, limits, self._wire.trailing_data[0])

    def _count(self, refusal: Refusal) -> None:
        self._options.refusals[refusal] += 1

    def _refusal_of(self, fault: h11.RemoteProtocolError) -> Refusal:
        if self._wire.trailing_data[1]:
            return Refusal.TRUNCATED
        return Refusal.HEAD_TOO_LARGE if fault.error_status_hint == TOO_LARGE else Refusal.MALFORMED

    async def _send_fault(self, fault: h11.RemoteProtocolError, client: str) -> None:
        """Send an error for an unreadable request, unless a response has begun."""
        if self._wire.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        reason = str(fault)[:MAX_FAULT_CHARACTERS]
        # The part after the colon quotes the input, perhaps a key.
        log.info("unreadable request from %s: %r", client, reason.partition(": ")[0])
        message = (
            LARGE_HEAD if fault.error_status_hint == TOO_LARGE else f"The request is not valid HTTP/1.1: {reason}."
        )
        error = Malformed(message, status=fault.error_status_hint)
        body = error.body()
        head = self._head(error.status, [*JSON, (b"content-length", b"%d" % len(body))])
        await self._stream.write(head if self._method == b"HEAD" else head + body)

    async def _discard_body(self) -> None:
        """Read and discard the rest of the body."""
        with trio.move_on_after(DISCARD_SECONDS):
            while self._wire.their_state is h11.SEND_BODY:
                await self._body()
