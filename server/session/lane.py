"""One lane of a connection: its responses, one after the other, and the input that steers them."""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from os import urandom
from typing import Protocol

import trio
from msgspec import UNSET, Struct
from msgspec.structs import replace

from server.generation import Generation, as_api_error
from server.protocol.errors import ApiError
from server.protocol.events import TERMINAL, Event
from server.protocol.response import Response
from server.session import steering
from server.session.client_events import Create, Steer
from server.session.responder import Order, Responder, Specified
from server.session.server_events import (
    RejectedSteer,
    SessionEvent,
    SteerAccepted,
    SteerError,
    SteerFailed,
    SteerPending,
    SteerReference,
    encode,
    in_lane,
    request_error,
)
from server.session.steering import PendingSteer, SteerRefused
from server.session.turn import SessionTurn


class Host(Protocol):
    """Connection of the lane."""

    responder: Responder
    event_heartbeats: bool
    """True if heartbeats are `response.in_progress` events."""

    def encode(self, events: Iterable[Event]) -> list[bytes]:
        """Return each event as a message."""

    async def send(self, messages: Sequence[bytes]) -> None: ...

    def begin_turn(self) -> SessionTurn: ...

    def authorize(self) -> None:
        """Raise ApiError if the client may not create responses any more."""

    def end_turn(self, turn: SessionTurn) -> None:
        """Log the turn."""

    def next_steer_number(self) -> int: ...


class _Running(Struct):
    order: Order
    generation: Generation
    steers: list[PendingSteer]
    steerable: bool


class _Ended(Struct, frozen=True):
    order: Order
    response: Response
    steers: list[PendingSteer]


class SessionLane:
    def __init__(self, name: str | None, host: Host) -> None:
        """`name`: the clients' `stream_id`; None for the default lane."""
        self._name = name
        self._host = host
        self._responder = host.responder
        self.queue: deque[Create] = deque()
        self.busy = False
        self._running: _Running | None = None
        self._waiting: tuple[str, list[PendingSteer]] = ("", [])
        """Response that waits for results of tools, and the input after these."""

    async def run(self, capacity: trio.CapacityLimiter) -> None:
        """Answer the queued requests, and those that arrive meanwhile."""
        self.busy = True
        try:
            while self.queue:
                async with capacity:
                    await self._answer(self.queue.popleft())
        finally:
            self.busy = False

    @property
    def response_id(self) -> str | None:
        """Id of the response in progress."""
        return None if self._running is None else self._running.generation.response.id

    async def steer(self, steer: Steer) -> None:
        """Accept or refuse input for the response in progress."""
        running = self._running
        assert running is not None, "the session has found the response here"
        try:
            items = steering.items(steer)
            if running.generation.ended.is_set():
                raise SteerRefused("response_already_completed", "The response has ended: send `response.create`.")
            if not running.steerable:
                message = "Responses with a conversation, a compaction, MCP tools or without output cannot be steered."
                raise SteerRefused("steering_not_supported", message)
            pending = PendingSteer(f"steer_{urandom(16).hex()}", steer, items)
            size = pending.size + sum(each.size for each in running.steers)
            if len(running.steers) >= steering.MAX_PENDING or size > steering.MAX_PENDING_BYTES:
                message = "Too much input waits for this response: wait until the next one begins."
                raise SteerRefused("too_many_pending_steers", message)
        except SteerRefused as refusal:
            return await self.refuse(steer, refusal.code, refusal.message)
        running.steers.append(pending)
        running.generation.steer()
        reference = SteerReference(pending.id, steer.previous_response_id)
        return await self._send(SteerAccepted(self._host.next_steer_number(), reference))

    async def refuse(self, steer: Steer, code: str, message: str, pending: PendingSteer | None = None) -> None:
        """Return input to the client, with its id if it was accepted as `pending`."""
        id_ = UNSET if pending is None else pending.id
        rejected = RejectedSteer(steer.input, steer.previous_response_id, id_)
        await self._send(SteerFailed(self._host.next_steer_number(), SteerError(code, message), rejected))

    async def send_error(self, error: ApiError) -> None:
        await self._send(request_error(error))

    async def _send(self, event: SessionEvent) -> None:
        await self._host.send([in_lane(encode(event), self._name)])

    async def _answer(self, create: Create) -> None:
        """Create a response, and its successors if it is steered."""
        parent, steers = self._waiting
        self._waiting = ("", [])

        async def order() -> Order:
            nonlocal steers
            ordered = await self._responder.order(create)
            if ordered.request.previous_response_id != parent:
                await self._fail(steers, "response_not_active", "The lane has gone on without the tools' results.")
                steers = []
            return ordered.after([item for steer in steers for item in steer.items])

        try:
            ended = await self._attempt(order, self.send_error)
        finally:
            self._responder.bodies.free(create.reserved)
        if ended is None:
            await self._fail(steers, "successor_creation_failed", "The request with the tools' results failed.")
        while ended is not None and ended.steers:
            ended = await self._succeed(ended)

    async def _succeed(self, ended: _Ended) -> _Ended | None:
        """Create the successor of a response that was steered."""
        response, steers = ended.response, ended.steers
        if response.status in ("failed", "cancelled"):
            await self._fail(steers, "response_not_active", f"The response ended: {response.status}.")
            return None
        if required := steering.required_input(response):
            self._waiting = (response.id, steers)
            for steer in steers:
                reference = SteerReference(steer.id, response.id)
                await self._send(SteerPending(self._host.next_steer_number(), reference, required))
            return None

        async def order() -> Order:
            items = [item for steer in steers for item in steer.items]
            request = replace(ended.order.request, input=items, previous_response_id=response.id)
            return ended.order.with_request(request)

        async def fail(error: ApiError) -> None:
            await self._fail(steers, "successor_creation_failed", error.message)

        return await self._attempt(order, fail)

    async def _fail(self, steers: Sequence[PendingSteer], code: str, message: str) -> None:
        for each in steers:
            await self.refuse(each.steer, code, message, each)

    async def _attempt(
        self, make_order: Callable[[], Awaitable[Order]], on_error: Callable[[ApiError], Awaitable[None]]
    ) -> _Ended | None:
        """Create a response and send its events; None if it could not be created."""
        turn, order = self._host.begin_turn(), None
        try:
            self._host.authorize()
            order = await make_order()
            return await self._respond(turn, order)
        except Exception as error:
            failure = as_api_error(error, turn.id)
            turn.status, turn.outcome = failure.status, failure.summary
            turn.refusal = "" if turn.starts_generation else failure.reason
            if order is not None:
                self._responder.evict(self._host, self._name, order.request.previous_response_id)
            await on_error(failure)
            return None
        finally:
            turn.outcome = turn.outcome or turn.disconnect_reason
            self._host.end_turn(turn)

    async def _respond(self, turn: SessionTurn, order: Order) -> _Ended:
        """Create a response and send its events. Raises ApiError, StoreError."""
        generations = self._responder.generations
        generations.check_admission(turn.caller)
        specified = await self._responder.specify(turn, order, self._host)
        spec = replace(specified.spec, event_heartbeats=self._host.event_heartbeats)
        with generations.admit(spec) as generation:
            running = self._running = _Running(order, generation, [], specified.steerable)
            try:
                await self._stream(turn, generation, specified)
            finally:
                self._running = None
        return _Ended(order, generation.response, running.steers)

    async def _stream(self, turn: SessionTurn, generation: Generation, specified: Specified) -> None:
        """Send the events of a generation as they arise, the terminal one once the response can be continued."""
        last = None
        with generation.reading(turn):
            while not isinstance(last, TERMINAL):
                events = await generation.after(-1 if last is None else last.sequence_number)
                if isinstance(events[-1], TERMINAL):
                    await self._responder.remember(self._host, self._name, specified, generation)
                messages = [in_lane(message, self._name) for message in self._host.encode(events)]
                if (clock := generation.token_clock) is not None:
                    clock.encoded(events[-1].sequence_number, time.perf_counter())
                await self._host.send(messages)
                if clock is not None:
                    clock.written(events[-1].sequence_number, time.perf_counter())
                if last is None:
                    self._responder.generations.start(generation)
                    turn.starts_generation = True
                last = events[-1]
        turn.status, turn.outcome = 200, generation.response.status or ""
