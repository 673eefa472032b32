"""One attempt to answer a job, as its form of the API sees it: messages for the generation, and where they go."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from engine.job import Lane
from server.postprocessing import UpstreamTrace
from server.protocol.errors import ApiError
from server.upstream.transport.client import UpstreamClient

EVENT_STREAM = "text/event-stream"


class AttemptBegun(Struct, frozen=True):
    """The job has a slot, and an upstream is asked."""


class FirstDelta(Struct, frozen=True):
    """The first part of the answer follows."""

    trace: UpstreamTrace


class AttemptsFailed(Struct, frozen=True):
    """There is no answer, or no more of it."""

    error: ApiError


class Attempt(Protocol):
    """Receiver of the outputs of one attempt. Each method raises trio.BrokenResourceError if the client has left."""

    async def send(self, output: Any) -> None:
        """Pass an output on."""

    async def begin(self) -> None:
        """Note the first part of the answer, after which no other attempt is made. Later calls do nothing."""

    def complete(self) -> None:
        """Note that the answer is complete: only the connection remains to be recycled."""


class UpstreamJob(Protocol):
    """One generation, as the attempts read it."""

    @property
    def lane(self) -> Lane: ...

    @property
    def affinity(self) -> str:
        """Conversations of one name go to one upstream, whose cache has their prefix."""


Ask: TypeAlias = Callable[[UpstreamClient, Any, Attempt], Awaitable[None]]
"""Asks one upstream for the answer to a job. Raises UpstreamFault, OutputMismatch, trio.BrokenResourceError."""
