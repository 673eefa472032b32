"""Specification of a generation, and its timeouts. Data only."""

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import Struct

from server.access import Caller
from server.generation.generator import GeneratorJob
from server.generation.summary import EarlierPrompt, Origin
from server.protocol.builtin_calls import McpCall
from server.protocol.response import Response
from server.stream import Processor, ReasoningSealer, StreamInput, ToolCallStarted


class Stage(Struct, frozen=True, kw_only=True):
    """One of several jobs of a generation, one after another."""

    job: GeneratorJob
    processor: Processor
    inputs: tuple[StreamInput, ...] = ()
    """Inputs of the stream before those of the job. If they end with a call, the job does not run."""
    adds_usage: bool = False
    """True if the usage of the response includes that of the jobs before."""
    follow: "NextStage | None" = None
    """Function that returns the stage after this one; None if this is the last."""


NextStage: TypeAlias = Callable[[Response, McpCall | None], Awaitable[Stage | None]]
"""Function of the response so far and its call that waits for execution; None ends the response."""


class GenerationSpec(Struct, frozen=True, kw_only=True):
    """Specification of a generation."""

    first: Response
    """Response of the event `response.created`."""
    job: GeneratorJob
    processor: Processor
    items: bytes
    """Input items, a JSON list for the store and the log."""
    logs_content: bool = False
    """True if the operator wants input and output in the log."""
    origin: Origin
    caller: Caller
    streamed: bool
    reports_progress: bool
    """True if events report the progress of the prompt."""
    earlier: EarlierPrompt = EarlierPrompt()
    """Comparison with an earlier prompt of the conversation."""
    follow: NextStage | None = None
    """Function that returns the stage after `job`, once that has ended; None if there is none."""
    opening: tuple[StreamInput, ...] = ()
    """Inputs of the stream before those of the job, once it is in progress. If they end with a call, `job` does not
    run: it is like those of the next stages."""
    repeats: bool = False
    """True if heartbeats are `response.in_progress` events; otherwise they are SSE comments."""
    sealer: ReasoningSealer | None = None
    """Adds the sealed text of reasoning items, if the request asks for it."""
    timed_since: float | None = None
    """Time at which the request was received, by `time.perf_counter`, if the response has the times of its tokens."""

    @property
    def begins_with_call(self) -> bool:
        """True if a call that the user has approved is executed before any job."""
        return any(isinstance(each, ToolCallStarted) for each in self.opening)

    @property
    def mode(self) -> str:
        """`stream`, `background`, `whole` or `websocket`."""
        mode = "background" if self.first.background else "stream" if self.streamed else "whole"
        return self.origin.transport or mode


class Timeouts(Struct, frozen=True):
    """Timeouts in seconds."""

    heartbeat: float
    """Seconds of silence before the first item until a heartbeat; 0: no heartbeats."""
    resume_window: float
    """Seconds that a stored stream runs on without a reader."""
    answer: float = math.inf
    """Seconds that an answer may have a slot."""
