"""One response being made: a task of its own, and any number of readers that follow it.

Engine outputs become stream inputs, and these become events; `job.max_tokens` bounds their number. The terminal event
leaves when the response is stored: a client that has read it finds the response again, even after a power cut.
"""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from enum import Enum, auto

import trio
from msgspec import Struct

from engine.job import EngineOutput, Job
from engine.runtime import Engine, EngineStopped
from server.generation.event_log import EventLog
from server.generation.heartbeat import BEGUN, Heartbeat
from server.generation.recorder import Recorder
from server.protocol.errors import ApiError, Unavailable
from server.protocol.events import Event, Response
from server.store import AsyncStore
from server.stream import (
    Cancelled,
    NotStored,
    OutputProcessor,
    Stream,
    StreamInput,
    failure,
    feed_all,
    opening_inputs,
)

STOPPING = "The server is shutting down."
MISTAKE = "Internal error; see the server log."

log = logging.getLogger("responsed.generation")


class GenerationSpec(Struct, frozen=True, kw_only=True):
    """What is to be made."""

    first: Response
    """As `response.created` has it."""
    job: Job
    answer: OutputProcessor
    items: bytes
    """What came in, for the store."""
    streamed: bool
    tells_progress: bool
    """True if events tell how much of the prompt is evaluated."""
    repeats: bool = False
    """True if `response.in_progress` comes again while nothing is there to send. Otherwise comments do that."""


class Timeouts(Struct, frozen=True):
    """In seconds."""

    heartbeat: float
    """The longest silence of a stream before the first item; 0: any."""
    resume_window: float
    """How long a stored stream goes on without a reader."""


class Phase(Enum):
    """Where a generation is. Each phase follows the one before it; a generation that never had a slot skips RUNNING."""

    QUEUED = auto()
    """It has no slot yet."""
    RUNNING = auto()
    ENDING = auto()
    """Its last input is known, and being stored."""
    ENDED = auto()


class Generation:
    """A new generation has its first events; `run` makes the others."""

    def __init__(self, spec: GenerationSpec, engine: Engine, store: AsyncStore | None, timeouts: Timeouts) -> None:
        self._spec = spec
        self._engine = engine
        self._recorder = Recorder(store, spec.first, spec.items)
        self._resume_window = timeouts.resume_window
        events = spec.repeats or spec.tells_progress
        self._pulse = Heartbeat(timeouts.heartbeat if events else 0, spec.tells_progress, trio.current_time())
        self.heartbeat = 0 if events else timeouts.heartbeat
        """Seconds of silence after which a reader sends a comment; 0: none does."""
        self._stream = Stream(spec.first)
        self._inputs: list[StreamInput] = []
        self._log = EventLog()
        self.phase = Phase.QUEUED
        self.error: ApiError | None = None
        """Error that ended it from outside, or of the server itself."""
        self.slot_seconds_used: float | None = None
        """Seconds in which it had a slot, known when it has ended; None if it had none."""
        self._readers = 0
        self._scope = trio.CancelScope()
        """Cancelled to end the generation. Its deadline is finite while nobody reads."""
        self._slot_since = math.inf
        """Time at which it got its slot, as far as that is known before the first output."""
        self._apply(opening_inputs(spec.first))

    @property
    def response(self) -> Response:
        """The response as readers know it by now."""
        return self._response

    @property
    def ended(self) -> trio.Event:
        return self._log.ended

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Count a reader. After the last one, a stored stream goes on for a while, a background response to its end."""
        self._readers += 1
        self._scope.deadline = math.inf
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers and not self.response.background:
                resumable = self._spec.streamed and self.response.store
                self._scope.deadline = trio.current_time() + (self._resume_window if resumable else 0)

    @property
    def abandoned(self) -> bool:
        """True if it ends because nobody reads it."""
        return not self._readers and self._scope.deadline <= trio.current_time()

    @property
    def slot_seconds(self) -> float:
        """Seconds since it got its slot; 0 without one."""
        return max(trio.current_time() - self._slot_since, 0.0) if self._spec.answer.started else 0.0

    @property
    def queued_without_reader(self) -> bool:
        """True if it waits for a slot only in case its client comes back."""
        return self.phase is Phase.QUEUED and not self._readers and self._scope.deadline < math.inf

    @property
    def writing(self) -> bool:
        """True if the first item has begun."""
        return self._stream.state in BEGUN

    def has_nothing_after(self, number: int) -> bool:
        """True if a reader of the event `number` has to wait for the next one."""
        return self._log.has_nothing_after(number)

    async def after(self, number: int) -> list[Event]:
        """Return the events behind `number`, at least one; at the end the terminal one (again)."""
        return await self._log.after(number)

    def error_events(self, error: ApiError) -> list[Event]:
        """Return the events that end the stream of a reader that cannot get the rest."""
        if self.ended.is_set():
            return self._log.events[-1:]
        stream = Stream(self._spec.first)
        list(feed_all(stream, self._inputs))
        return stream.feed(failure(error))

    def cancel(self) -> None:
        self._scope.cancel()

    def fail(self, error: ApiError) -> None:
        """End it with an error, unless it is about to end by itself."""
        self.error = error
        self._scope.cancel()

    async def begin(self) -> bool:
        """Write that the response is being made. Return whether it is stored."""
        stored = await self._recorder.begin()
        if self.response.store and not stored:
            self._apply([NotStored()])
        return stored

    async def run(self) -> None:
        """Make all events. Whatever happens, exactly one of them is terminal."""
        async with trio.open_nursery() as nursery:
            if not self._recorder.begun:
                nursery.start_soon(self.begin)  # beside it: the first token doesn't wait for a disk
            last = await self._generate()
        if self._spec.answer.started:
            self.slot_seconds_used = trio.current_time() - self._slot_since
        self._enter(Phase.ENDING)
        events = self._stream.feed(last)
        response = self._stream.response
        if (response.store or response.conversation) and not await self._recorder.finish(
            response, [*self._inputs, last]
        ):
            events = self._stream.without_store(events)
        self._enter(Phase.ENDED)
        self._response = self._stream.response
        self._log.close(events)

    def _enter(self, phase: Phase) -> None:
        assert phase.value > self.phase.value, f"{phase.name} cannot follow {self.phase.name}"
        self.phase = phase

    async def _generate(self) -> StreamInput:
        """Apply all stream inputs but the last, and return that one."""
        try:
            with self._scope:
                return await self._consume()
        except EngineStopped:
            self.error = Unavailable(STOPPING)
        except Exception:
            log.exception("%s failed", self.response.id)
            self.error = ApiError(MISTAKE)
        usage = self._spec.answer.usage if self._spec.answer.started else None
        return Cancelled(usage) if self.error is None else failure(self.error, usage)

    async def _consume(self) -> StreamInput:
        answer = self._spec.answer
        if not self._engine.full:
            self._slot_since = trio.current_time()
        with self._engine.generate(self._spec.job) as outputs:
            while True:
                arrived = await _arrived(outputs, self._pulse.due(self._stream.state))
                now = int(time.time())
                if arrived:
                    self._slot_since = min(self._slot_since, trio.current_time())
                inputs = [each for output in arrived for each in answer.process(output, now)]
                if self.phase is Phase.QUEUED and answer.started:
                    self._enter(Phase.RUNNING)
                last = inputs.pop() if answer.ended else None
                self._apply([*self._pulse.due_events(self._stream.state, answer, trio.current_time()), *inputs])
                if last is not None:
                    return last

    def _apply(self, inputs: list[StreamInput]) -> None:
        self._inputs += inputs
        events = list(feed_all(self._stream, inputs))
        self._response = self._stream.response
        self._log.append(events)


async def _arrived(pieces: trio.MemoryReceiveChannel[EngineOutput], due: float) -> list[EngineOutput]:
    """What there is: all of it leaves in one `send`, which costs the same whatever its size. Nothing at the time `due`.

    Once text flows, nothing is due, and there is no cancel scope: it would cost a tenth of a token's way to the socket.
    """
    if due == math.inf:
        arrived = [await pieces.receive()]
    else:
        arrived = []
        with trio.move_on_at(due):
            arrived.append(await pieces.receive())
    with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            arrived.append(pieces.receive_nowait())
    return arrived
