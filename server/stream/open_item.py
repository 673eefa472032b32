"""Items while they stream: each kind has a class, whose objects open, take deltas and close. Pure.

Open Responses, "Items are streamable".
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeAlias

from server.protocol.events import Event
from server.protocol.output_items import Logprob
from server.stream.inputs import (
    McpListStarted,
    McpToolsListed,
    ReasoningAdded,
    SummaryAdded,
    TextAdded,
    ToolCallStarted,
)

NextNumber: TypeAlias = Callable[[], int]
"""Counter of sequence numbers."""
Outcome: TypeAlias = Literal["completed", "incomplete"]
Opening: TypeAlias = TextAdded | ReasoningAdded | SummaryAdded | ToolCallStarted | McpListStarted | McpToolsListed
"""Inputs that open an item."""


class OpenItem(Protocol):
    """Open item."""

    @property
    def silent(self) -> bool:
        """True if its next events may take long: it has none until it is complete, or is executed."""

    def added(self) -> Iterator[Event]: ...
    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]: ...
    def done(self, status: Outcome) -> Iterator[Event]: ...
