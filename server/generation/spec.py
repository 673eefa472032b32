"""Specification of a generation. Data only."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import Struct

from engine.job import Job
from server.access import Caller
from server.generation.summary import Origin
from server.protocol.response import Response
from server.stream import OutputProcessor, ReasoningSealer


class Stage(Struct, frozen=True, kw_only=True):
    """Job of a generation that has several, one after another."""

    job: Job
    processor: OutputProcessor
    follow: "NextStage | None" = None
    """Function that returns the step after this one; None if this is the last."""


NextStage: TypeAlias = Callable[[], Awaitable[Stage]]


class GenerationSpec(Struct, frozen=True, kw_only=True):
    """Specification of a generation."""

    first: Response
    """Response of the event `response.created`."""
    job: Job
    processor: OutputProcessor
    items: bytes
    """Input items, a JSON list for the store."""
    origin: Origin
    caller: Caller
    streamed: bool
    reports_progress: bool
    """True if events report the progress of the prompt."""
    cache_note: str = ""
    """Sentence for the log if `repeated_tokens` were evaluated again; may be empty."""
    repeated_tokens: int = 0
    """Tokens of the prompt that an earlier prompt has too, at another place or behind a difference."""
    reusable_tokens: int = 0
    """First tokens of the prompt that an earlier prompt of the conversation has too."""
    follow: NextStage | None = None
    """Function that returns the step after `job`, once that has ended; None if there is none."""
    repeats: bool = False
    """True if heartbeats are `response.in_progress` events; otherwise they are SSE comments."""
    sealer: ReasoningSealer | None = None
    """Adds the sealed text of reasoning items, if the request asks for it."""
