"""Specification of a generation, and its timeouts. Data only."""

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from server.access import Caller
from server.generation.generator import GeneratorJob
from server.generation.summary import EarlierPrompt, Origin
from server.postprocessing import Processor, ReasoningSealer
from server.protocol.builtin_calls import McpCall
from server.protocol.response import Response
from server.stream import StreamInput


class Stage(Struct, frozen=True, kw_only=True):
    """A further job of a generation, which runs its jobs one after another."""

    job: GeneratorJob
    processor: Processor
    inputs: tuple[StreamInput, ...] = ()
    """Inputs of the stream before those of the job."""
    runs: bool = True
    """False if the job does not run, and the next stage follows the inputs."""
    earlier: EarlierPrompt | None = None
    """Comparison with an earlier prompt; None: that of the stage before."""
    adds_usage: bool = False
    """True if the usage of the response includes that of the jobs before."""
    follow: "NextStage | None" = None
    """Function that returns the stage after this one; None if this is the last."""


NextStage: TypeAlias = Callable[[Response, McpCall | None], Awaitable[Stage | None]]
"""Function of the response so far and its call that waits for execution, if any; None ends the response."""


class GenerationSpec(Struct, frozen=True, kw_only=True):
    """Specification of a generation."""

    first: Response
    """Response of the event `response.created`."""
    job: GeneratorJob
    processor: Processor
    items: Callable[[], bytes]
    """Function that returns the input items, a JSON list for the store and the log."""
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
    """First inputs of the stream, which begin a list of tools or a call of an MCP server. With them, `job` does not
    run: it is like those of the next stages."""
    event_heartbeats: bool = False
    """True if heartbeats are `response.in_progress` events; otherwise they are SSE comments."""
    sealer: ReasoningSealer | None = None
    """Adds the sealed text of reasoning items, if the request asks for it."""
    timed_since: float | None = None
    """Time at which the request was received, by `time.perf_counter`, if the response has the times of its tokens."""

    def at(self, stage: Stage) -> "GenerationSpec":
        """Return the specification with a further stage."""
        earlier = stage.earlier or self.earlier
        return replace(self, job=stage.job, processor=stage.processor, follow=stage.follow, earlier=earlier)

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
