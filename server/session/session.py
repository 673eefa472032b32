"""One connection in WebSocket mode: reads the client's events and gives each to its lane.

OpenAI's guide "WebSocket mode" and Open Responses, "WebSocket Transport": requests of one lane are answered one after
the other. A client that names no lane has only one.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence

import trio

from server.generation import as_api_error
from server.http import Exchange, new_request_id
from server.protocol.errors import InvalidRequest, ServerBusy
from server.protocol.events import Event
from server.session.client_events import Create, Steer, decode
from server.session.lane import SessionLane
from server.session.responder import Responder
from server.session.server_events import encode, in_lane, request_error
from server.session.turn import SessionTurn
from server.websocket import CloseCode, SocketClosed, WebSocket

log = logging.getLogger("responsed.http")

MAX_RUNNING = 16
"""Number of responses in progress on one connection (OpenAI)."""
MAX_LANES = 32
"""Number of named lanes of one connection (OpenAI)."""
MAX_QUEUED = 64
"""Number of requests that wait on one connection."""

LIMIT_REACHED = "websocket_connection_limit_reached"
EXPIRED = "Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue."
"""OpenAI's code and message."""


class Session:
    def __init__(
        self,
        socket: WebSocket,
        handshake: Exchange,
        responder: Responder,
        authorize: Callable[[], None],
        record: Callable[[SessionTurn, float], None],
    ) -> None:
        """`authorize` raises ApiError if the client's key is no longer valid.

        `record` logs a turn that began at a time.
        """
        self.responder = responder
        self.event_heartbeats = handshake.is_codex
        self._encode = responder.encoder(handshake.header)
        self.authorize = authorize
        self._socket = socket
        self._handshake = handshake
        self._record = record
        self._lanes: dict[str | None, SessionLane] = {}
        self._capacity = trio.CapacityLimiter(MAX_RUNNING)
        self._idle_scope = trio.CancelScope()
        """Scope of the receiving task, cancelled at shutdown, and after a time, while no response is in progress."""
        self._expires = trio.current_time() + socket.limits.age
        self._steer_numbers = 0

    async def run(self) -> int:
        """Serve the connection until its end, and return the close code."""
        end = SocketClosed(CloseCode.INTERNAL_ERROR, "internal error")
        try:
            async with trio.open_nursery() as nursery:
                end = await self._receive(nursery)
                nursery.cancel_scope.cancel()
        except Exception:
            log.exception("%s failed", self._handshake.id)
        finally:
            self._socket.transport.set_idle(None)
            self.responder.memory.forget(self)
            for lane in self._lanes.values():
                for create in lane.queue:
                    self.responder.bodies.free(create.reserved)
            await self._socket.close(end.code, end.reason)
        return end.code

    def encode(self, events: Iterable[Event]) -> list[bytes]:
        return self._encode(events)

    async def send(self, messages: Sequence[bytes]) -> None:
        await self._socket.send(messages)

    def begin_turn(self) -> SessionTurn:
        return SessionTurn(self._handshake, new_request_id())

    def end_turn(self, turn: SessionTurn) -> None:
        self._record(turn, turn.began)

    def next_steer_number(self) -> int:
        """Number the events about steering, which belong to no response's stream, apart."""
        number, self._steer_numbers = self._steer_numbers, self._steer_numbers + 1
        return number

    async def _receive(self, nursery: trio.Nursery) -> SocketClosed:
        """Give messages to lanes until the connection ends, and return how it ends."""
        self._update_idle()
        try:
            with self._idle_scope:
                while True:
                    await self._read(nursery, *await self._socket.receive(self.responder.bodies))
        except SocketClosed as end:
            self._handshake.watch.reason = self._socket.transport.disconnect_reason
            return end
        return await self._idle_end()

    async def _read(self, nursery: trio.Nursery, message: bytes, reserved: int) -> None:
        """Give one message to its lane, or answer with an error."""
        name, queued = None, False
        try:
            event = decode(await self.responder.bodies.cleaned(message), reserved)
            if isinstance(event, Create):
                name = event.lane
                self._queue(nursery, event)
                queued = True
            else:
                await self._steer(event)
        except Exception as error:
            failure = as_api_error(error, self._handshake.id)
            await self.send([in_lane(encode(request_error(failure)), name)])
        finally:
            if not queued:
                self.responder.bodies.free(reserved)

    def _queue(self, nursery: trio.Nursery, create: Create) -> None:
        """Raises InvalidRequest, ServerBusy."""
        if trio.current_time() >= self._expires:
            raise InvalidRequest(EXPIRED, code=LIMIT_REACHED)
        if sum(len(lane.queue) for lane in self._lanes.values()) >= MAX_QUEUED:
            message = f"{MAX_QUEUED} requests of this connection wait already: wait until a response has ended."
            raise ServerBusy(message, retry_after=1, reason="connection")
        lane = self._lane(create.lane)
        lane.queue.append(create)
        if not lane.busy:
            lane.busy = True
            self._update_idle()
            nursery.start_soon(self._run, lane)

    def _lane(self, name: str | None) -> SessionLane:
        if name not in self._lanes:
            if name is not None and len(self._lanes.keys() - {None}) >= MAX_LANES:
                raise InvalidRequest(
                    f"This connection has {MAX_LANES} values of `stream_id`: use one of these, or connect again.",
                    param="stream_id",
                    code="websocket_stream_limit_reached",
                )
            self._lanes[name] = SessionLane(name, self)
        return self._lanes[name]

    async def _run(self, lane: SessionLane) -> None:
        await lane.run(self._capacity)
        self._update_idle()

    async def _steer(self, steer: Steer) -> None:
        for lane in self._lanes.values():
            if lane.response_id == steer.previous_response_id:
                return await lane.steer(steer)
        lane = self._lane(None)
        if self.responder.memory.find(self, steer.previous_response_id) is not None:
            return await lane.refuse(steer, "response_already_completed", "The response has ended: create another one.")
        return await lane.refuse(steer, "response_not_found", "This connection has no such response in progress.")

    def _update_idle(self) -> None:
        """Let shutdown, new connections and time end the connection only while it has no response in progress."""
        if any(lane.busy for lane in self._lanes.values()):
            self._idle_scope.deadline = math.inf
            self._socket.transport.set_idle(None)
        else:
            self._idle_scope.deadline = min(trio.current_time() + self._socket.limits.idle, self._expires)
            self._socket.transport.set_idle(self._idle_scope)

    async def _idle_end(self) -> SocketClosed:
        """Return the reason for closing a connection that was cancelled while it was idle."""
        now = trio.current_time()
        if self._socket.transport.shutting_down:
            return SocketClosed(CloseCode.SERVICE_RESTART, "the server is stopping")
        if now >= self._expires:
            await self.send([encode(request_error(InvalidRequest(EXPIRED, code=LIMIT_REACHED)))])
            return SocketClosed(CloseCode.NORMAL, "the connection is too old")
        if now >= self._idle_scope.deadline:
            return SocketClosed(CloseCode.GOING_AWAY, f"no response in progress for {self._socket.limits.idle:g} s")
        return SocketClosed(CloseCode.TRY_AGAIN_LATER, "too many connections")
