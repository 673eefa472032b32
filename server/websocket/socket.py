"""One WebSocket connection after its handshake, over wsproto (RFC 6455).

One task receives, any number of tasks send. Text messages carry the application's data; each limit that a client breaks
closes the connection with a code of RFC 6455, 7.4.
"""

from collections.abc import Iterable

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from server.websocket.closing import CloseCode, SocketClosed
from server.websocket.limits import WebSocketLimits
from server.websocket.message import IncomingMessage
from server.websocket.transport import Budget, Transport

CLOSE_SECONDS = 2.0
"""Seconds to wait for the client's close frame."""
TURN_EVENTS = 64
"""Number of frames to read in one turn of the event loop: they take a millisecond."""
PINGS_PER_SECOND = 20
"""Maximum pings of a client in one second."""


class WebSocket:
    def __init__(self, transport: Transport, limits: WebSocketLimits, trailing: bytes = b"") -> None:
        """`trailing`: bytes that arrived with the handshake."""
        self.transport = transport
        self.limits = limits
        self._wire = Connection(ConnectionType.SERVER, trailing_data=trailing)
        self._broken = False
        """True if the client broke the protocol or a limit, so that no further frame is read."""
        self._lock = trio.Lock()
        self._pong = b""
        """Pong that leaves with the next frames, since another task is sending."""
        self._message = IncomingMessage(limits)
        self._pings: list[float] = []
        """Times of the client's latest pings."""
        now = trio.current_time()
        self._heard = now
        self._next_ping = now + limits.ping

    async def receive(self, budget: Budget) -> tuple[bytes, int]:
        """Return the next message and the bytes that it has reserved. Raises SocketClosed at the end."""
        await trio.lowlevel.checkpoint()  # a client may send thousands of messages at once
        try:
            while True:
                for count, event in enumerate(self._wire.events(), 1):
                    if await self._is_message(event, budget):
                        return self._message.take()
                    if not count % TURN_EVENTS:
                        await trio.lowlevel.checkpoint()
                await self._read()
        except SocketClosed:
            self._broken = self._wire.state is not ConnectionState.REMOTE_CLOSING
            raise
        finally:
            budget.free(self._message.reserved)  # of a message that will not be complete

    async def send(self, messages: Iterable[bytes]) -> None:
        """Send text messages, in one piece."""
        if self._wire.state is ConnectionState.OPEN:
            frames = [self._wire.send(TextMessage(message.decode())) for message in messages]
            await self._write(b"".join(frames))

    async def close(self, code: int, reason: str = "") -> None:
        """Send the close frame, and wait for the client's, unless the connection was lost. No task may receive now."""
        if code == CloseCode.ABNORMAL or self._wire.state is ConnectionState.CLOSED:
            return
        by_client = self._wire.state is ConnectionState.REMOTE_CLOSING
        await self._write(self._wire.send(CloseConnection(code, reason)))
        if self._broken:
            await self.transport.finish()
        elif not by_client:
            with trio.move_on_after(CLOSE_SECONDS):
                await self._discard()

    async def _discard(self) -> None:
        """Read and discard until the client's close frame, so that the client can read ours."""
        while data := await self.transport.read():
            self._wire.receive_data(data)
            if any(isinstance(event, CloseConnection) for event in self._wire.events()):
                return

    async def _write(self, data: bytes) -> None:
        if self._lock.locked():
            await self._lock.acquire()
        else:
            self._lock.acquire_nowait()  # without a turn of the event loop
        try:
            data, self._pong = self._pong + data, b""
            await self.transport.write(data)
        finally:
            self._lock.release()

    async def _is_message(self, event: Event, budget: Budget) -> bool:
        """True if the event completes a message. Raises SocketClosed."""
        match event:
            case TextMessage():
                self._message.add(event, budget)
                return event.message_finished
            case BytesMessage():
                raise SocketClosed(CloseCode.UNSUPPORTED_DATA, "send JSON as a text message")
            case Ping():
                await self._answer_ping(event)
            case CloseConnection():  # of the client, or of wsproto for frames that break the protocol
                by_client = self._wire.state is ConnectionState.REMOTE_CLOSING
                raise SocketClosed(event.code, "" if by_client else event.reason or "")
        return False

    async def _answer_ping(self, ping: Ping) -> None:
        """Answer, at once unless another task is sending: that answer waits with it (RFC 6455, 5.5.3)."""
        now = trio.current_time()
        self._pings = [*(time for time in self._pings if time > now - 1), now]
        if len(self._pings) > PINGS_PER_SECOND:
            raise SocketClosed(CloseCode.POLICY_VIOLATION, f"more than {PINGS_PER_SECOND} pings in a second")
        self._pong = self._wire.send(ping.response())
        if not self._lock.locked():
            await self._write(b"")

    async def _read(self) -> None:
        """Read once; ping a client that is silent. Raises SocketClosed."""
        while True:
            slow = self._message.deadline
            with trio.move_on_at(min(self._next_ping, slow)):
                data = await self.transport.read()
                self._heard = trio.current_time()
                self._next_ping = self._heard + self.limits.ping
                if not data:
                    raise SocketClosed(CloseCode.ABNORMAL, "")
                return self._wire.receive_data(data)
            now = trio.current_time()
            if now >= slow:
                raise SocketClosed(CloseCode.POLICY_VIOLATION, "the message did not arrive in time")
            if now >= self._heard + self.limits.pong:
                raise SocketClosed(CloseCode.POLICY_VIOLATION, f"no answer to pings for {self.limits.pong:g} s")
            self._next_ping = now + self.limits.ping
            if not self._lock.locked():
                await self._write(self._wire.send(Ping()))
