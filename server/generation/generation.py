"""One response being made: a task of its own, and any number of readers that follow it.

It goes from pieces to cues to events. All events stay here until it has ended, so that who comes late, or again, reads
the same; `job.max_tokens` bounds them. The terminal event leaves when the response is stored: who has read it finds it
again, even if the power goes then.
"""

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Iterator

import msgspec
import trio
from msgspec import Struct

from engine.job import EngineOutput, Job
from engine.runtime import Engine, EngineStopped
from server.generation.heartbeat import BEGUN, Heartbeat
from server.protocol.errors import ApiError, Unavailable
from server.protocol.events import Event, Response
from server.store import AsyncStore, Missing, Stored, StoredItem, StoreError, split
from server.stream import (
    Cancelled,
    NotStored,
    OutputProcessor,
    Stream,
    StreamInput,
    events_after,
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


class Generation:
    """Made, it has its first events; `run` brings the others."""

    def __init__(self, order: GenerationSpec, engine: Engine, archive: AsyncStore | None, patience: Timeouts) -> None:
        self._order = order
        self._engine = engine
        self._archive = archive
        self._resume_window = patience.resume_window
        events = order.repeats or order.tells_progress
        self._pulse = Heartbeat(patience.heartbeat if events else 0, order.tells_progress, trio.current_time())
        self.heartbeat = 0 if events else patience.heartbeat
        """Seconds of silence after which a reader sends a comment; 0: none does."""
        self._stream = Stream(order.first)
        self._cues: list[StreamInput] = []
        self.response = order.first
        """As readers know it by now."""
        self.events: list[Event] = []
        """So far; each at the index of its number."""
        self.ended = trio.Event()
        self.took: float | None = None
        """Seconds in which it had a slot, known when it has ended; None where it had none."""
        self._readers = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._making = trio.CancelScope()
        self.error: ApiError | None = None
        """Error that ended it from outside, or of the server itself."""
        self._begun = False
        self._since = math.inf
        """When it got its slot."""
        self._apply(opening_inputs(order.first))

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While somebody reads. What was asked for decides whether it goes on when the last one has left."""
        self._readers += 1
        self._making.deadline = math.inf
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers and not self.response.background:
                resumable = self._order.streamed and self.response.store
                self._making.deadline = trio.current_time() + (self._resume_window if resumable else 0)

    @property
    def abandoned(self) -> bool:
        """True if it ends since nobody reads it."""
        return not self._readers and self._making.deadline <= trio.current_time()

    @property
    def waits(self) -> bool:
        """True if it has no slot yet."""
        return not self._order.answer.started

    @property
    def slot_seconds(self) -> float:
        """Seconds since it got its slot; 0 without one."""
        return max(trio.current_time() - self._since, 0.0) if self._order.answer.started else 0.0

    @property
    def queued_without_reader(self) -> bool:
        """Whether nobody reads it, and it is only kept in the queue in case that somebody comes back."""
        return not self._readers and self._making.deadline < math.inf and not self._order.answer.started

    @property
    def writing(self) -> bool:
        """True if the first item has begun."""
        return self._stream.state in BEGUN

    def has_nothing_after(self, number: int) -> bool:
        """Whether nothing is there yet behind the event of that number."""
        return len(self.events) <= number + 1 and not self.ended.is_set()

    async def after(self, number: int) -> list[Event]:
        """What comes behind the event of that number: at least one, in the end (again) the terminal one."""
        while self.has_nothing_after(number):
            await self._waiting.park()
        return events_after(self.events, number)

    def error_events(self, error: ApiError) -> list[Event]:
        """What ends the stream of a reader to whom the rest can't be told."""
        if self.ended.is_set():
            return self.events[-1:]
        stream = Stream(self._order.first)
        list(feed_all(stream, self._cues))
        return stream.feed(failure(error))

    def cancel(self) -> None:
        self._making.cancel()

    def fail(self, error: ApiError) -> None:
        """Unless it is about to end by itself."""
        self.error = error
        self._making.cancel()

    async def begin(self) -> bool:
        """Write down that it is being made. Whether it is stored."""
        self._begun = True
        if self._archive is None or not self.response.store:
            return False
        first = self._order.first
        encoded = msgspec.json.encode(first)
        stored = Stored(
            id=first.id,
            created_at=first.created_at,
            status=first.status,
            first=encoded,
            response=encoded,
            items=self._order.items,
            previous=first.previous_response_id,
            conversation=first.conversation.id if first.conversation else None,
        )
        kept = await self._kept(self._archive.begin(stored, time.monotonic()))
        if not kept:
            self._apply([NotStored()])
        return kept

    async def run(self) -> None:
        """To the terminal event. Whatever happens, there is exactly one of those."""
        async with trio.open_nursery() as nursery:
            if not self._begun:
                nursery.start_soon(self.begin)  # beside it: the first token doesn't wait for a disk
            last = await self._make()
        if self._order.answer.started:
            self.took = trio.current_time() - self._since
        await self._end(last)

    async def _make(self) -> StreamInput:
        """All cues but the last; that one comes back."""
        try:
            with self._making:
                return await self._consume()
        except EngineStopped:
            self.error = Unavailable(STOPPING)
        except Exception:
            log.exception("%s failed", self.response.id)
            self.error = ApiError(MISTAKE)
        usage = self._order.answer.usage if self._order.answer.started else None
        return Cancelled(usage) if self.error is None else failure(self.error, usage)

    async def _consume(self) -> StreamInput:
        answer = self._order.answer
        if not self._engine.full:
            self._since = trio.current_time()
        with self._engine.generate(self._order.job) as pieces:
            while True:
                arrived = await _arrived(pieces, self._pulse.due(self._stream.state))
                now = int(time.time())
                if arrived:
                    self._since = min(self._since, trio.current_time())
                cues = [cue for piece in arrived for cue in answer.process(piece, now)]
                last = cues.pop() if answer.ended else None
                self._apply([*self._pulse.due_events(self._stream.state, answer, trio.current_time()), *cues])
                if last is not None:
                    return last

    def _apply(self, cues: list[StreamInput]) -> None:
        self._cues += cues
        self._publish(list(feed_all(self._stream, cues)))

    def _publish(self, events: list[Event]) -> None:
        self.response = self._stream.response
        self.events += events
        self._waiting.unpark_all()

    async def _end(self, last: StreamInput) -> None:
        events = self._stream.feed(last)
        if (self.response.store or self.response.conversation) and not await self._finish(last):
            # All once more, and what was told already stays as it was: Unstored is no event.
            self._stream = Stream(self._order.first)
            events = list(feed_all(self._stream, [*self._cues, NotStored(), last]))[len(self.events) :]
        self.ended.set()
        self._publish(events)

    async def _finish(self, last: StreamInput) -> bool:
        assert self._archive is not None, "nothing is stored nowhere"
        response = self._stream.response
        if await self._kept(self._write(self._archive, response, last)):
            return True
        if response.store:
            with contextlib.suppress(StoreError):
                await self._archive.delete(response.id)
        return False

    async def _write(self, archive: AsyncStore, response: Response, last: StreamInput) -> None:
        """Its end; in a conversation, with what came in and what goes out. Whether the response itself is stored
        makes no difference to its conversation (so OpenAI does it: vllm-project/agentic-api#56)."""
        made = [StoredItem(item.id, msgspec.json.encode(item)) for item in response.output]
        if response.store:
            cues = msgspec.json.encode([*self._cues, last])
            encoded = msgspec.json.encode(response)
            await archive.finish(response.id, response.status, encoded, cues, made, time.monotonic())
        elif response.conversation and response.status != "failed":
            with contextlib.suppress(Missing):  # deleted meanwhile
                said = [*split(self._order.items), *made]
                await archive.conversations.add(response.conversation.id, said, time.monotonic())

    async def _kept(self, writing: Awaitable[None]) -> bool:
        """No answer is lost because of a disk."""
        try:
            await writing
        except Exception as error:
            log.warning("%s is not stored: %s", self.response.id, error)
            return False
        return True


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
