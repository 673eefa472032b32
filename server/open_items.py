"""Items as they come: one small class for each kind, which opens, takes deltas, and closes. Pure.

Open Responses, "Items are streamable". A new kind is a new class and one line in ITEMS.
"""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, TypeAlias

from server.cues import Cue, Reasoning, Text
from server.events import (
    ContentPartAdded,
    ContentPartDone,
    Event,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputText,
    OutputTextDelta,
    OutputTextDone,
    ReasoningItem,
    ReasoningText,
    ReasoningTextDelta,
    ReasoningTextDone,
)

Number: TypeAlias = Callable[[], int]
"""The next event's."""
Outcome: TypeAlias = Literal["completed", "incomplete"]


class OpenItem(Protocol):
    """What the stream does with the item that is open."""

    def added(self) -> Iterator[Event]: ...
    def delta(self, text: str) -> Iterator[Event]: ...
    def done(self, status: Outcome) -> Iterator[Event]: ...


class OpenMessage:
    """A message with one text part."""

    prefix = "msg"

    def __init__(self, id_: str, output_index: int, number: Number) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, Message(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, OutputText(""))

    def delta(self, text: str) -> Iterator[Event]:
        self._texts.append(text)
        yield OutputTextDelta(self._number(), self._id, self._index, 0, text)

    def done(self, status: Outcome) -> Iterator[Event]:
        part = OutputText("".join(self._texts))
        yield OutputTextDone(self._number(), self._id, self._index, 0, part.text)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, Message(self._id, status, (part,)))


class OpenReasoning:
    """Reasoning as it was thought, in one part; nobody has summed it up."""

    prefix = "rs"

    def __init__(self, id_: str, output_index: int, number: Number) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, ReasoningItem(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, ReasoningText(""))

    def delta(self, text: str) -> Iterator[Event]:
        self._texts.append(text)
        yield ReasoningTextDelta(self._number(), self._id, self._index, 0, text)

    def done(self, status: Outcome) -> Iterator[Event]:
        part = ReasoningText("".join(self._texts))
        yield ReasoningTextDone(self._number(), self._id, self._index, 0, part.text)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, ReasoningItem(self._id, status, (part,)))


ITEMS: dict[type[Cue], type[OpenMessage] | type[OpenReasoning]] = {Text: OpenMessage, Reasoning: OpenReasoning}
"""The item that a cue is part of."""
