"""Generation of one response: a task of its own, and any number of readers.

The task converts engine outputs to stream inputs, and these to events; `job.max_tokens` limits their number. It emits
the terminal event after storing the response, so that a client that has read it can retrieve the response, even after a
power cut.
"""

import logging
import math
import time
from contextlib import AbstractContextManager

import trio
from msgspec.structs import replace

from engine.job import Lane
from engine.runtime import EngineStopped
from server.generation.admission import Load
from server.generation.arrivals import arrived_outputs
from server.generation.event_log import EventLog
from server.generation.failures import INTERNAL_ERROR, stopping
from server.generation.generator import Generator
from server.generation.heartbeat import ITEM_STATES, Heartbeat
from server.generation.readers import Reader, Readers
from server.generation.recorder import Recorder
from server.generation.spec import GenerationSpec, Timeouts
from server.generation.stages import can_cut, with_opening, with_usage_of_all
from server.generation.summary import GenerationSummary, Timings, summarize
from server.generation.token_clock import TokenClock
from server.protocol.errors import ApiError
from server.protocol.events import Event
from server.protocol.response import Response, Usage, total_usage
from server.store import AsyncStore
from server.stream import (
    Cancelled,
    End,
    NotStored,
    Stream,
    StreamInput,
    failure,
    feed_all,
    opening_inputs,
)

log = logging.getLogger("responsed.generation")


class Generation:
    """Generation of one response. A new one has its first events; `run` produces the others."""

    def __init__(self, spec: GenerationSpec, engine: Generator, store: AsyncStore | None, timeouts: Timeouts) -> None:
        self._spec = spec
        self._engine = engine
        self._recorder = Recorder(store, spec.first, spec.items)
        self._resume_window = timeouts.resume_window
        self._answer_seconds = timeouts.answer
        events = spec.repeats or spec.reports_progress
        self._heartbeat = Heartbeat(timeouts.heartbeat if events else 0, spec.reports_progress, trio.current_time())
        self.heartbeat = 0 if events else timeouts.heartbeat
        """Seconds of silence after which readers send a comment; 0: no comments."""
        self._stream = Stream(spec.first)
        self._inputs: list[StreamInput] = []
        self._log = EventLog()
        self.error: ApiError | None = None
        """Error that ended the generation, other than an error of the model."""
        self._cancel_reason = ""
        self._scope = trio.CancelScope()
        """Scope to cancel the generation."""
        self._readers = Readers(self._scope, self._seconds_without_reader)
        self._earlier: Usage | None = None
        """Usage of the jobs before this one."""
        self._opening = spec.opening
        self._steered = False
        """True if the client has further input for the model."""
        self._earlier_tokens = 0
        """Tokens of the stages that have ended."""
        self.timings = Timings(trio.current_time())
        self._slot_since = math.inf
        """Time at which it got its slot, an estimate until the first output."""
        self.token_clock = None if spec.timed_since is None else TokenClock(spec.timed_since, time.perf_counter())
        self._apply(opening_inputs(spec.first))

    @property
    def response(self) -> Response:
        """Response according to the events so far."""
        return self._response

    @property
    def spec(self) -> GenerationSpec:
        """Specification, with its present job."""
        return self._spec

    @property
    def ended(self) -> trio.Event:
        return self._log.ended

    def reading(self, reader: Reader | None = None) -> AbstractContextManager[None]:
        """Count a reader. After the last one, stored streams run on for a while, background responses to their end."""
        return self._readers.reading(reader)

    def _seconds_without_reader(self) -> float:
        if self.response.background:
            return math.inf
        return self._resume_window if self._spec.streamed and self.response.store else 0

    @property
    def abandoned(self) -> bool:
        """True if the generation ends for lack of readers."""
        return self._readers.are_gone

    @property
    def generated_tokens(self) -> int:
        return self._earlier_tokens + self._spec.processor.output_tokens

    @property
    def silent(self) -> bool:
        """True if it writes an item that has no events until it is complete."""
        return self._stream.silent

    @property
    def queued(self) -> bool:
        """True if it has not had a slot."""
        return not self._spec.processor.started

    @property
    def slot_seconds(self) -> float:
        """Seconds since the generation got its slot; 0 without a slot."""
        return 0.0 if self.queued else max(trio.current_time() - self._slot_since, 0.0)

    @property
    def lane(self) -> Lane:
        return self._spec.job.lane

    def load(self) -> Load:
        """Return its demand for a slot."""
        job, processor, first = self._spec.job, self._spec.processor, self.timings.first_token
        return Load(
            job.lane,
            self._spec.caller.name,
            started=processor.started,
            prompt_tokens=processor.pending_prompt_tokens,
            output_tokens=processor.output_tokens,
            max_tokens=job.max_tokens,
            seconds=0.0 if first is None else trio.current_time() - first,
        )

    @property
    def queued_without_reader(self) -> bool:
        """True if it waits for a slot without a reader, since its client may resume."""
        return self.queued and self._readers.have_left

    @property
    def writing(self) -> bool:
        """True if the first item has begun."""
        return self._stream.state in ITEM_STATES

    def summary(self) -> GenerationSummary:
        """Return the facts about the generation, which has ended."""
        spec = self._spec
        why = self._cancel_reason or self._readers.reason if self.response.status == "cancelled" else ""
        why = why if self.error is None else self.error.reason
        now = trio.current_time()
        return summarize(self.response, spec.origin, self.timings, spec.mode, why, spec.earlier, now)

    def has_nothing_after(self, number: int) -> bool:
        """True if a reader of the event `number` has to wait for the next one."""
        return self._log.has_nothing_after(number)

    async def after(self, number: int) -> list[Event]:
        """Wait for events after `number` and return them; after the end, return the terminal event again."""
        return await self._log.after(number)

    def error_events(self, error: ApiError) -> list[Event]:
        """Return the terminal events for a reader that cannot get the rest of the stream."""
        if self.ended.is_set():
            return self._log.events[-1:]
        stream = Stream(self._spec.first)
        list(feed_all(stream, self._inputs))
        return stream.feed(failure(error))

    def cancel(self, reason: str = "") -> None:
        """End the generation. `reason`: for the log and the metrics; empty: its reader has left."""
        self._cancel_reason = reason
        self._scope.cancel()

    def steer(self) -> None:
        """End the response as soon as possible, for the reason `steered`. Calls of tools are never cut."""
        self._steered = True

    def fail(self, error: ApiError) -> None:
        """End the generation with an error, unless it is ending already."""
        self.error = error
        self._scope.cancel()

    async def begin(self) -> bool:
        """Write the unfinished response to the store; return True if it is stored."""
        stored = await self._recorder.begin()
        if self.response.store and not stored:
            self._apply([NotStored()])
        return stored

    async def run(self) -> None:
        """Produce all events, exactly one of which is terminal, even after an error."""
        async with trio.open_nursery() as nursery:
            if not self._recorder.begun:
                nursery.start_soon(self.begin)  # in parallel, so that the first token does not wait for the disk
            last = await self._generate()
        events = self._stream.feed(last)
        response = self._stream.response
        if (response.store or response.conversation) and not await self._recorder.finish(
            response, [*self._inputs, last]
        ):
            events = self._stream.without_store(events)
        self._response = self._stream.response
        if self.token_clock is not None:
            self._response = self.token_clock.added_to(self._response)
            events[-1] = replace(events[-1], response=self._response)
        self._log_cache_miss()
        self._log.close(events)

    def _log_cache_miss(self) -> None:
        earlier, usage = self._spec.earlier, self._response.usage
        if usage is not None and earlier.repeats(usage):
            log.info("%s: %s", self._response.id, earlier.note)

    async def _generate(self) -> StreamInput:
        """Apply all stream inputs but the last one, and return the last one."""
        try:
            with self._scope:
                return await self._consume()
        except EngineStopped:
            self.error = stopping()
        except ApiError as error:
            self.error = error
        except Exception:
            log.exception("%s failed", self.response.id)
            self.error = ApiError(INTERNAL_ERROR)
        usage = self._earlier if self.queued else total_usage([self._earlier, self._spec.processor.usage])
        return Cancelled(usage) if self.error is None else failure(self.error, usage)

    async def _consume(self) -> StreamInput:
        """Run all stages; return the last input of the last one, or of one that failed."""
        while True:
            last = with_usage_of_all(await self._run_job(), self._earlier)
            if self._spec.follow is None or not isinstance(last, End):
                return last
            stage = await self._spec.follow(self._response, self._stream.pending_call)
            if stage is None:
                return last
            self._earlier = last.usage if stage.adds_usage else None
            self._earlier_tokens = self.generated_tokens
            self._apply(list(stage.inputs))
            if stage.inputs:
                await self._recorder.advance(self._inputs)
            self._spec = replace(self._spec, job=stage.job, processor=stage.processor, follow=stage.follow)

    async def _run_job(self) -> StreamInput:
        processor = self._spec.processor
        if not self._engine.full(self._spec.job.lane):
            self._slot_since = trio.current_time()
        with self._engine.generate(self._spec.job) as outputs:
            while True:
                arrived = await arrived_outputs(outputs, self._heartbeat.due(self._stream.state))
                now = int(time.time())
                if arrived:
                    self._slot_since = min(self._slot_since, trio.current_time())
                if self.token_clock is not None:
                    self.token_clock.handed_over(arrived, time.perf_counter())
                tokens = processor.output_tokens
                inputs = [each for output in arrived for each in processor.process(output, now)]
                if self._steered and can_cut(processor, self._stream.state, [*self._inputs, *inputs]):
                    inputs += processor.cut(now, "steered")
                if self._spec.sealer is not None:
                    inputs = list(self._spec.sealer.add(inputs))
                slot_since = self._slot_since if processor.started else None
                self.timings.record(trio.current_time(), slot_since, processor.output_tokens > tokens)
                last = inputs.pop() if processor.ended else None
                inputs = [*self._heartbeat.due_events(self._stream.state, processor, trio.current_time()), *inputs]
                if self._opening and processor.started:
                    inputs, self._opening = with_opening(inputs, self._opening), ()
                self._apply(inputs)
                if last is not None:
                    return last
                if self.slot_seconds > self._answer_seconds:
                    raise ApiError(
                        f"The answer took longer than {self._answer_seconds:g} s (--answer-timeout).",
                        reason="answer_timeout",
                    )

    def _apply(self, inputs: list[StreamInput]) -> None:
        self._inputs += inputs
        events = list(feed_all(self._stream, inputs))
        self._response = self._stream.response
        self._log.append(events)
        if self.token_clock is not None:
            self.token_clock.emitted(len(self._log.events) - 1)
