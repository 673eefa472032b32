"""HTTP/1.1 on one connection, over h11: requests in, one after the other; what the application answers, out (RFC 9112).

One task a connection: the application runs in it, and what it wants to receive is read when it asks. A frame of a
stream goes to the kernel as it is, in a chunk put around it by hand, without a turn of the event loop.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import formatdate
from typing import Any, TypeAlias

import h11
import trio

from server.http import h11_patches
from server.http.exchange import JSON, Receive, Scope, Send
from server.http.request_head import HeadFilter, asgi_scope, check
from server.protocol.errors import Malformed

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_SECONDS = 20.0
"""For the head of a request, the wait for it included. Longer than clients keep an idle connection (httpx 5 s, node
4 s): a server that closes first loses requests."""
READ_BYTES = 16384
"""At once. h11 bounds a head that comes in pieces, by so many bytes too, and takes whatever is whole."""
READ_AHEAD = 65536
"""Bytes that are read beyond a request while it is answered, in search of the hang-up."""
LINGER_SECONDS = 2.0
"""How long a client that is still sending when it has its answer may go on, so that it can read it: closing at once
would throw the answer away with the connection (RFC 9112, 9.6)."""
MOST_TOLD = 200
"""Characters of what was wrong: it may be told with the line that it is about."""

log = logging.getLogger("responsed.http")


class Drain:
    """Open until the end. Who still waits for a request then is sent away; an answer says that it is the last."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: dict[trio.CancelScope, None] = {}
        """Connections without a request, the one that waits longest first."""

    @contextmanager
    def wait_for_request(self) -> Iterator[None]:
        """A block that ends, wherever it is, when the door closes, or when it took too long."""
        with trio.CancelScope(deadline=trio.current_time() + REQUEST_SECONDS) as scope:
            if self.closed:
                scope.cancel()
            self._waiting[scope] = None
            try:
                yield
            finally:
                self._waiting.pop(scope, None)

    def close_oldest(self) -> None:
        """Close the connection that has waited longest for a request, to make room for another."""
        if self._waiting:
            scope = next(iter(self._waiting))
            del self._waiting[scope]
            scope.cancel()

    def close(self) -> None:
        self.closed = True
        for scope in self._waiting:
            scope.cancel()


class Connection:
    """A client's, from accept to close (which is for the caller to do)."""

    def __init__(self, app: Application, stream: trio.SocketStream, door: Drain) -> None:
        self._app = app
        self._stream = stream
        self._door = door
        h11_patches.apply()
        self._wire = h11.Connection(h11.SERVER)
        self._head_filter = HeadFilter()
        self._method = b""
        self._unsent = b""
        """The head of the answer, until something of its body comes: both leave together."""
        self._chunked = False
        self._fault: h11.RemoteProtocolError | None = None
        self._gone = trio.Event()
        """Whether nothing can be said any more."""

    async def run(self) -> None:
        """Whatever comes, it ends no more than this connection."""
        try:
            client: tuple[str, int] = self._stream.socket.getpeername()[:2]
        except OSError:
            return  # gone before it was looked at
        try:
            await self._converse(client)
        except h11.RemoteProtocolError as error:
            self._fault = error
        except Exception:
            log.exception("a connection failed")
        if self._fault is not None:
            await self._refuse(self._fault)
        await self._linger()

    async def _converse(self, client: tuple[str, int]) -> None:
        while (request := await self._request()) is not None:
            await self._app(asgi_scope(request, client), self._receive, self._send)
            await self._rest()
            done = self._wire.our_state is h11.DONE and self._wire.their_state is h11.DONE
            if self._gone.is_set() or not done:
                return  # one of the two has said that this was the last, or not all that it had to say
            self._next_cycle()
            await trio.lowlevel.checkpoint()  # thousands of requests may have come already

    def _next_cycle(self) -> None:
        """Begin with the next request, of which something may have come already."""
        trailing, closed = self._wire.trailing_data
        self._head_filter = HeadFilter()
        if not trailing:
            return self._wire.start_next_cycle()
        self._wire = h11.Connection(h11.SERVER)
        self._feed(trailing)
        if closed:
            self._wire.receive_data(b"")
        return None

    def _feed(self, data: bytes) -> None:
        """Raises h11.RemoteProtocolError."""
        if data := self._head_filter.feed(data, self._wire.their_state is h11.IDLE):
            self._wire.receive_data(data)

    async def _request(self) -> h11.Request | None:
        """None where no more come. Raises h11.RemoteProtocolError."""
        event, self._method = None, b""
        with self._door.wait_for_request():
            event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        check(event)
        return event

    async def _receive(self) -> Mapping[str, Any]:
        """What has come of the body; behind its end, the hang-up."""
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
                    await self._gone.wait()
                    break
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._unsent = self._head(message["status"], message["headers"])
            return
        body: bytes = message["body"]
        if not self._chunked:
            framed = self._wire.send(h11.Data(data=body)) or b""
        else:  # as h11 does it, which takes 20 us for it (RFC 9112, 7.1)
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        end = b"" if message["more_body"] else self._wire.send(h11.EndOfMessage()) or b""
        data, self._unsent = self._unsent + framed + end, b""
        await self._write(data)

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        headers = [*headers, (b"date", formatdate(usegmt=True).encode())]
        if self._door.closed or self._fault is not None or self._wire.they_are_waiting_for_100_continue:
            # Of a body that nobody asked for, nobody knows whether it comes (RFC 9110, 10.1.1).
            headers.append((b"connection", b"close"))
        head = h11.Response(status_code=status, headers=headers)
        data = self._wire.send(head) or b""
        self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in data.lower()
        return data

    async def _body(self) -> tuple[bytes, bool]:
        """What has come of it, and whether there is more. Raises h11.RemoteProtocolError."""
        body = bytearray()
        event = await self._event()
        while isinstance(event, h11.Data):
            body += event.data
            event = self._wire.next_event()
        return bytes(body), event is h11.NEED_DATA

    async def _event(self) -> "h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]":
        """What the client says next. Raises h11.RemoteProtocolError."""
        while (event := self._wire.next_event()) is h11.NEED_DATA:
            if self._wire.they_are_waiting_for_100_continue:
                await self._write(self._wire.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            await self._read()
        return event

    async def _read(self) -> bool:
        """Whether there was something, and may be more."""
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except trio.BrokenResourceError:
            data = b""
        if data:
            self._feed(bytes(data))
        else:
            self._wire.receive_data(b"")
        return bool(data)

    async def _write(self, data: bytes) -> None:
        """To the kernel at once, where it has room; nowhere, once the client is gone."""
        if self._gone.is_set() or not data:
            return
        try:
            sent = os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._gone.set()
            return
        if sent < len(data):
            try:
                await self._stream.send_all(data[sent:])
            except trio.BrokenResourceError:
                self._gone.set()
            except trio.Cancelled:
                self._gone.set()  # behind half a frame nothing makes sense
                raise

    async def _refuse(self, fault: h11.RemoteProtocolError) -> None:
        """Where nothing was answered yet."""
        if self._wire.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        why = str(fault)[:MOST_TOLD]
        log.info("a request can't be read: %r", why.partition(": ")[0])  # behind it, what was sent: a key, perhaps
        error = Malformed(f"This can't be read as HTTP/1.1: {why}.", status=fault.error_status_hint)
        body = error.body()
        head = self._head(error.status, [*JSON, (b"content-length", b"%d" % len(body))])
        await self._write(head if self._method == b"HEAD" else head + body)

    async def _rest(self) -> None:
        """What is left of the body, read and thrown away."""
        with trio.move_on_after(LINGER_SECONDS):
            while self._wire.their_state is h11.SEND_BODY:
                await self._body()

    async def _linger(self) -> None:
        """Until a client that is still sending, nobody knows what, has heard why it is not read."""
        if self._gone.is_set() or self._fault is None:
            return
        with suppress(trio.BrokenResourceError), trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            while await self._stream.receive_some(READ_AHEAD):
                pass
