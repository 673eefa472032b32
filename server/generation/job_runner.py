"""Runner of the jobs of one response: outputs of the engine -> stream inputs -> events, with their times."""

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import trio

from server.generation.failures import answer_timeout
from server.generation.generator import Generator
from server.generation.heartbeat import Heartbeat
from server.generation.response_events import ResponseEvents
from server.generation.spec import GenerationSpec
from server.generation.timings import SlotTime, Timings
from server.postprocessing import Processor
from server.stream import State, StreamInput, ToolCallStarted

T = TypeVar("T")


class JobRunner:
    """Runs the jobs of a response one after another, and applies their outputs to its events."""

    def __init__(self, engine: Generator, events: ResponseEvents, heartbeat: Heartbeat, answer_seconds: float) -> None:
        """`answer_seconds`: time that the jobs may have a slot, all together."""
        self._engine = engine
        self._events = events
        self._stream = events.stream
        self._heartbeat = heartbeat
        self._answer_seconds = answer_seconds
        self.steered = False
        """True if the client has further input for the model: the response ends as soon as possible."""
        self.timings = Timings(trio.current_time())
        self.slot = SlotTime()

    async def run(self, spec: GenerationSpec) -> StreamInput:
        """Run the job of `spec`; return its last input. Raises ApiError once the jobs have had a slot for too long."""
        self.slot.begin(trio.current_time(), self._engine.full(spec.job.lane))
        try:
            with trio.CancelScope() as limit, self._engine.generate(spec.job) as outputs:
                while True:
                    if limit.deadline != (deadline := self.slot.deadline(self._answer_seconds)):
                        limit.deadline = deadline
                    arrived = await _arrived_outputs(outputs, self._heartbeat.due(self._stream.state))
                    if (last := self._process(spec, arrived)) is not None:
                        return last
            raise answer_timeout(self._answer_seconds)
        finally:
            self.slot.end(trio.current_time())

    def _process(self, spec: GenerationSpec, arrived: Sequence[Any]) -> StreamInput | None:
        """Apply outputs of the engine; return the last input once the job has ended."""
        processor, now = spec.processor, int(time.time())
        if arrived:
            self.slot.arrived(trio.current_time())
        if self._events.token_clock is not None:
            self._events.token_clock.handed_over(arrived, time.perf_counter())
        tokens = processor.output_tokens
        inputs = [each for output in arrived for each in processor.process(output, now)]
        if self.steered and _can_cut(processor, self._stream.state, [*self._events.inputs, *inputs]):
            inputs += processor.cut(now, "steered")
        if spec.sealer is not None:
            inputs = list(spec.sealer.add(inputs))
        slot_since = self.slot.since if processor.started else None
        self.timings.record(trio.current_time(), slot_since, processor.output_tokens > tokens)
        last = inputs.pop() if processor.ended else None
        inputs = [*self._heartbeat.due_events(self._stream.state, processor, trio.current_time()), *inputs]
        self._events.apply(inputs)
        return last


async def _arrived_outputs(outputs: trio.MemoryReceiveChannel[T], due: float) -> list[T]:
    """Wait for outputs until `due`, and return all available ones; one `send` of many costs no more than of one.

    While text streams, `due` is infinite and no cancel scope is made: it would cost a tenth of a token's latency.
    """
    if due == math.inf:
        arrived = [await outputs.receive()]
    else:
        arrived = []
        with trio.move_on_at(due):
            arrived.append(await outputs.receive())
    with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            arrived.append(outputs.receive_nowait())
    return arrived


def _can_cut(processor: Processor, state: State, inputs: Sequence[StreamInput]) -> bool:
    """True if the output is text or reasoning that may end after `inputs`."""
    has_call = any(isinstance(each, ToolCallStarted) for each in inputs)
    running = state in (State.RUNNING, State.WRITING)
    return running and not has_call and processor.output_tokens > 0 and not processor.ended
