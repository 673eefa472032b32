"""Generation of one response: a task of its own, and any number of readers.

The task converts engine outputs, which `job.max_tokens` bounds, to stream inputs, and these to events. It emits the
terminal event after storing the response, so that a client that has read it can retrieve the response, even after a
power cut.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import trio
from msgspec.structs import replace

from engine.job import Lane
from engine.runtime import EngineStopped
from server.generation.admission import Load
from server.generation.failures import INTERNAL_ERROR, stopping
from server.generation.generator import Generator
from server.generation.heartbeat import ITEM_STATES, Heartbeat
from server.generation.job_runner import JobRunner
from server.generation.readers import Reader, Readers
from server.generation.recorder import Recorder
from server.generation.response_events import ResponseEvents
from server.generation.spec import GenerationSpec, Stage, Timeouts
from server.generation.summary import GenerationSummary, content, summarize
from server.generation.token_clock import TokenClock
from server.protocol.errors import ApiError
from server.protocol.events import Event
from server.protocol.response import Response, Usage, total_usage
from server.store import AsyncStore
from server.stream import Cancelled, End, Failure, InProgress, NotStored, State, StreamInput, failure

log = logging.getLogger("responsed.generation")


class Generation:
    """Generation of one response. A new one has its first events; `run` produces the others."""

    def __init__(self, spec: GenerationSpec, engine: Generator, store: AsyncStore | None, timeouts: Timeouts) -> None:
        self._spec = spec
        self._recorder = Recorder(store, spec.first, spec.items)
        self._resume_window = timeouts.resume_window
        self._comment_seconds = timeouts.heartbeat
        self._has_event_heartbeats = spec.event_heartbeats or spec.reports_progress
        """True if heartbeats before the first item are events, not comments."""
        seconds = timeouts.heartbeat if self._has_event_heartbeats else 0
        heartbeat = Heartbeat(seconds, spec.reports_progress, trio.current_time())
        self.token_clock = None if spec.timed_since is None else TokenClock(spec.timed_since, time.perf_counter())
        self._events = ResponseEvents(spec.first, self.token_clock)
        self._jobs = JobRunner(engine, self._events, heartbeat, timeouts.answer)
        self.timings = self._jobs.timings
        self.slot = self._jobs.slot
        self.error: ApiError | None = None
        """Error that ended the generation, other than an error of the model."""
        self._cancel_reason = ""
        self._cancel_error: ApiError | None = None
        self._scope = trio.CancelScope()
        """Scope to cancel the generation."""
        self._readers = Readers(self._scope)
        self._usage_before: Usage | None = None
        """Usage of the jobs before this one."""
        self._tokens_before = 0
        """Tokens of the stages that have ended."""

    @property
    def response(self) -> Response:
        """Response according to the events so far."""
        return self._events.response

    @property
    def spec(self) -> GenerationSpec:
        """Specification, with its present job."""
        return self._spec

    @property
    def ended(self) -> trio.Event:
        return self._events.log.ended

    def reading(self, reader: Reader) -> AbstractContextManager[None]:
        """Count a reader. After the last one, stored streams run on for a while, background responses to their end."""
        return self._readers.reading(self._seconds_without_reader, reader)

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
        return self._tokens_before + self._spec.processor.output_tokens

    @property
    def comment_seconds(self) -> float:
        """Seconds of silence after which readers send a comment; 0: none, since they would cost time per token.

        Batch jobs may have long pauses, so that their streams get comments to the end.
        """
        if self._events.stream.state not in ITEM_STATES:
            return 0 if self._has_event_heartbeats else self._comment_seconds
        return self._comment_seconds if self._events.stream.silent or self.lane is Lane.BATCH else 0

    @property
    def queued(self) -> bool:
        """True if it waits for a slot."""
        return not self._spec.processor.started and not self._events.stream.waits_for_server

    @property
    def lane(self) -> Lane:
        return self._spec.job.lane

    def load(self) -> Load:
        """Return its demand for a slot."""
        first = self.timings.first_token
        seconds = 0.0 if first is None else trio.current_time() - first
        job, processor = self._spec.job, self._spec.processor
        return Load(
            job.lane,
            self._spec.caller.name,
            started=processor.started,
            prompt_tokens=processor.pending_prompt_tokens,
            output_tokens=processor.output_tokens,
            max_tokens=job.max_tokens,
            seconds=seconds,
        )

    @property
    def queued_without_reader(self) -> bool:
        """True if it waits for a slot without a reader, since its client may resume."""
        return self.queued and self._readers.have_left

    def content(self) -> str | None:
        """Return input and output as JSON for the log; None unless the operator wants them there."""
        return content(self.response, self._spec.items()) if self._spec.logs_content else None

    def summary(self) -> GenerationSummary:
        """Return the facts about the generation, which has ended."""
        spec = self._spec
        why = self._cancel_reason or self._readers.reason if self.response.status == "cancelled" else ""
        why = why if self.error is None else self.error.reason
        now = trio.current_time()
        trace = spec.processor.upstream
        return summarize(self.response, spec.origin, self.timings, spec.mode, why, spec.earlier, now, trace)

    def has_nothing_after(self, number: int) -> bool:
        """True if a reader of the event `number` has to wait for the next one."""
        return self._events.log.has_nothing_after(number)

    async def after(self, number: int) -> list[Event]:
        """Wait for events after `number` and return them; after the end, return the terminal event again."""
        return await self._events.log.after(number)

    def error_events(self, error: ApiError) -> list[Event]:
        """Return the terminal events for a reader that cannot get the rest of the stream."""
        return self._events.after_error(error)

    def cancel(self, reason: str = "") -> None:
        """End the generation. `reason`: for the log and the metrics; empty: its reader has left."""
        self._cancel_reason = reason
        self._scope.cancel()

    def steer(self) -> None:
        """End the response as soon as possible, for the reason `steered`. Calls of tools are never cut."""
        self._jobs.steered = True

    def fail(self, error: ApiError) -> None:
        """End the generation with an error, unless its last input is there already."""
        self._cancel_error = error
        self._scope.cancel()

    async def begin(self) -> bool:
        """Write the unfinished response to the store; return True if it is stored."""
        stored = await self._recorder.begin()
        if self.response.store and not stored:
            self._events.apply([NotStored()])
        return stored

    async def run(self) -> None:
        """Produce all events, exactly one of which is terminal, even after an error."""
        if self._recorder.unwritten and self._spec.opening:
            await self.begin()  # a crash must not hide the list or the call
        if self._recorder.unwritten:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.begin)  # in parallel, so that the first token does not wait for the disk
                last = await self._generate()
        else:
            last = await self._generate()
        try:
            await self._end(last)
        except Exception:
            log.exception("%s failed at its end", self.response.id)
            self.error = ApiError(INTERNAL_ERROR)
            self._events.fail(self.error)

    async def _end(self, last: StreamInput) -> None:
        """Store the response, and add its last events."""
        stream = self._events.stream
        events = stream.feed(last)
        response = stream.response
        if (response.store or response.conversation) and not await self._recorder.finish(
            response, [*self._events.inputs, last]
        ):
            events = stream.without_store(events)
        response = stream.response
        if response.usage is not None and self._spec.earlier.repeats(response.usage):
            log.info("%s: %s", response.id, self._spec.earlier.note)
        self._events.close(response, events)

    async def _generate(self) -> StreamInput:
        """Apply all stream inputs but the last one, and return the last one."""
        try:
            with self._scope:
                return await self._run_stages()
            self.error = self._cancel_error
        except EngineStopped:
            self.error = stopping()
        except ApiError as error:
            self.error = error.with_traceback(None)  # which would refer to this generation
        except Exception:
            log.exception("%s failed", self.response.id)
            self.error = ApiError(INTERNAL_ERROR)
        processor = self._spec.processor
        usage = total_usage([self._usage_before, processor.usage]) if processor.started else self._usage_before
        return Cancelled(usage) if self.error is None else failure(self.error, usage)

    async def _run_stages(self) -> StreamInput:
        """Run all stages; return the last input of the last one, or of one that failed.

        A stage may run no job: an MCP server lists its tools or executes a call, and the next stage follows.
        """
        runs = not self._spec.opening
        if not runs:
            begin = [InProgress()] if self._events.stream.state is State.QUEUED else []
            await self._apply_stored([*begin, *self._spec.opening])
        last: End | None = None
        while True:
            if runs:
                ended = _with_usage_of_all(await self._jobs.run(self._spec), self._usage_before)
                if self._spec.follow is None or not isinstance(ended, End):
                    return ended
                last = ended
                if self._events.stream.waits_for_server:
                    await self._recorder.advance(self._events.inputs)  # a crash must not hide the call
            stage = await self._next_stage()
            if stage is None:
                assert last, "a stage follows every list and every approved call"
                return last
            await self._begin_stage(stage, last)
            runs = stage.runs

    async def _begin_stage(self, stage: Stage, last: End | None) -> None:
        """Begin a stage. `last`: the end of the last job, if one has run."""
        self._usage_before = last.usage if last is not None and stage.adds_usage else None
        self._tokens_before = self.generated_tokens
        self._spec = self._spec.at(stage)  # before the wait, in which the job that has ended would count twice
        await self._apply_stored(stage.inputs)

    async def _next_stage(self) -> Stage | None:
        """Have the MCP server do what is pending, if anything is, and return the next stage."""
        assert self._spec.follow, "a stage follows every list and every call"
        stream, began = self._events.stream, trio.current_time()
        waits = stream.waits_for_server
        try:
            return await self._spec.follow(self.response, stream.pending_call)
        finally:
            self.timings.end_job(trio.current_time() - began if waits else 0.0)

    async def _apply_stored(self, inputs: Sequence[StreamInput]) -> None:
        """Apply inputs of lists and calls, and store them before anything else happens."""
        self._events.apply(inputs)
        if inputs:
            await self._recorder.advance(self._events.inputs)


def _with_usage_of_all(last: StreamInput, earlier: Usage | None) -> StreamInput:
    """Return the last input of a job with the usage of all jobs."""
    if isinstance(last, End | Failure) and last.usage is not None and earlier is not None:
        return replace(last, usage=total_usage([earlier, last.usage]))
    return last
