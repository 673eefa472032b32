"""Interface of the side that generates: the embedded engine, or upstream servers (`server.upstream`).

Two interfaces hide from all other folders which side it is. `server.served_model.interface` makes the job, since only
that side knows prompts, grammars and tokens. This one runs the job: its outputs go to the processor that the same side
made for them (`server.postprocessing.processor`), which returns inputs of the stream's state machine. So one side has
tokens and the other one deltas, and everything after the processors is the same.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import trio
from msgspec import Struct

from engine.job import Lane
from engine.scheduler import EngineStats, Times


class GeneratorJob(Protocol):
    """One generation, as its generator reads it."""

    @property
    def lane(self) -> Lane: ...

    @property
    def max_tokens(self) -> int:
        """Limit of generated tokens."""


class GeneratingServer(Struct, frozen=True):
    """Another server that generates, since the start."""

    url: str
    healthy: bool
    running: int
    """Requests in progress."""
    answers: int
    """Requests that were answered in full."""
    errors: Mapping[str, int]
    """Failed attempts by their kind."""
    first_delta: Times
    """Seconds from a request to its first delta."""
    lacking: tuple[str, ...] = ()
    """Fields of the API that it lacks."""
    error: str = ""
    """Why its last answer about its model cannot be used."""


class Generator(Protocol):
    """Runs jobs. Jobs and outputs are of the generator's own types."""

    @property
    def running(self) -> bool:
        """True if `generate` can work."""

    @property
    def stuck(self) -> bool:
        """True if only a restart helps."""

    def stats(self) -> EngineStats:
        """Return the sums since the start."""
        ...

    def full(self, lane: Lane = Lane.INTERACTIVE) -> bool:
        """True if another job of a lane would have to wait."""
        ...

    def servers(self) -> Sequence[GeneratingServer]:
        """Return the servers that generate; none if this one does."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""

    async def warm_up(self) -> None:
        """Generate a few tokens, so that readiness means that answers can be generated. Raises ModelError."""

    async def restore(self) -> None:
        """Load the state of the last run. Jobs run meanwhile."""

    def limit_steps(self, seconds: float) -> None:
        """Set the time of the longest step while a response streams; 0: the generator's own."""

    async def drop_cached(self, group: str | None = None) -> None:
        """Delete cached prompts of an affinity group, or all."""

    def generate(self, job: Any) -> AbstractContextManager[trio.MemoryReceiveChannel[Any]]:
        """Return a channel of the job's outputs. Leaving the block stops the generation. Raises EngineStopped."""
        ...
