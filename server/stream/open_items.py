"""Items as they come: one small class for each kind, which opens, takes deltas, and closes. Pure.

Open Responses, "Items are streamable". A new kind is a new class, and a cue that opens it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from server.protocol.events import (
    ContentPartAdded,
    ContentPartDone,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Event,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    Logprob,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputText,
    OutputTextDelta,
    OutputTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
)
from server.protocol.output_items import CustomToolCall, FunctionCall, ReasoningItem, ReasoningText
from server.stream.custom_input import CustomInputDecoder
from server.stream.inputs import ReasoningAdded, TextAdded, ToolCallStarted

C = TypeVar("C", FunctionCall, CustomToolCall)
Number: TypeAlias = Callable[[], int]
"""The next event's."""
Outcome: TypeAlias = Literal["completed", "incomplete"]
Opening: TypeAlias = TextAdded | ReasoningAdded | ToolCallStarted
"""Cues that an item begins with."""


class OpenItem(Protocol):
    """What the stream does with the item that is open."""

    def added(self) -> Iterator[Event]: ...
    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]: ...
    def done(self, status: Outcome) -> Iterator[Event]: ...


class OpenMessage:
    """A message with one text part."""

    prefix = "msg"

    def __init__(self, id_: str, output_index: int, number: Number, cue: Opening) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        self._logprobs: list[Logprob] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, Message(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, OutputText(""))

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        self._logprobs += logprobs
        yield OutputTextDelta(self._number(), self._id, self._index, 0, text, tuple(logprobs))

    def done(self, status: Outcome) -> Iterator[Event]:
        part = OutputText("".join(self._texts), logprobs=tuple(self._logprobs))
        yield OutputTextDone(self._number(), self._id, self._index, 0, part.text, part.logprobs)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, Message(self._id, status, (part,)))


class OpenReasoning:
    """Reasoning as it was thought, in one part; nobody has summed it up."""

    prefix = "rs"

    def __init__(self, id_: str, output_index: int, number: Number, cue: Opening) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, ReasoningItem(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, ReasoningText(""))

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        yield ReasoningTextDelta(self._number(), self._id, self._index, 0, text)

    def done(self, status: Outcome) -> Iterator[Event]:
        part = ReasoningText("".join(self._texts))
        yield ReasoningTextDone(self._number(), self._id, self._index, 0, part.text)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, ReasoningItem(self._id, status, (part,)))


class OpenCall(Generic[C]):
    """A call of either kind. What the model writes for it is gathered."""

    kind: type[C]

    def __init__(self, id_: str, output_index: int, number: Number, cue: Opening) -> None:
        assert isinstance(cue, ToolCallStarted), "a call is opened by nothing else"
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        # Not the item's: it pairs the call with its output.
        call_id = f"call_{id_.partition('_')[2]}"
        self._item: C = self.kind(id_, call_id, cue.name, "", "in_progress", cue.namespace or UNSET)

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, self._item)


class OpenFunctionCall(OpenCall[FunctionCall]):
    """A function that is called. Its arguments come as the model writes them."""

    prefix = "fc"
    kind = FunctionCall

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        yield FunctionCallArgumentsDelta(self._number(), self._item.id, self._index, text)

    def done(self, status: Outcome) -> Iterator[Event]:
        item = replace(self._item, arguments="".join(self._texts), status=status)
        yield FunctionCallArgumentsDone(self._number(), item.id, self._index, item.name, item.arguments)
        yield OutputItemDone(self._number(), self._index, item)


class OpenCustomCall(OpenCall[CustomToolCall]):
    """A tool that takes a text. To the model it is a function with one parameter, `input`; what is told is the text."""

    prefix = "ctc"
    kind = CustomToolCall

    def __init__(self, id_: str, output_index: int, number: Number, cue: Opening) -> None:
        super().__init__(id_, output_index, number, cue)
        self._unwrapping = CustomInputDecoder()
        self._streams = isinstance(cue, ToolCallStarted) and cue.streams

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(self._unwrapping.feed(text))
        if self._streams:
            yield from self._told(self._texts[-1])

    def done(self, status: Outcome) -> Iterator[Event]:
        self._texts.append(self._unwrapping.finish())
        item = replace(self._item, input="".join(self._texts), status=status)
        yield from self._told(self._texts[-1] if self._streams else item.input)
        yield CustomToolCallInputDone(self._number(), item.id, self._index, item.input)
        yield OutputItemDone(self._number(), self._index, item)

    def _told(self, text: str) -> Iterator[Event]:
        if text:
            yield CustomToolCallInputDelta(self._number(), self._item.id, self._index, text)


Kind: TypeAlias = type[OpenMessage] | type[OpenReasoning] | type[OpenFunctionCall] | type[OpenCustomCall]
KINDS: dict[type[Opening], Kind] = {
    TextAdded: OpenMessage,
    ReasoningAdded: OpenReasoning,
    ToolCallStarted: OpenFunctionCall,
}


def open_item(cue: Opening, stem: str, output_index: int, number: Number) -> OpenItem:
    """Ids are derived, not drawn: unique as the response's `stem` is, and the same input gives the same bytes."""
    kind = kind_of(cue)
    return kind(f"{kind.prefix}_{stem}{output_index:02}", output_index, number, cue)


def kind_of(cue: Opening) -> Kind:
    return OpenCustomCall if isinstance(cue, ToolCallStarted) and cue.custom else KINDS[type(cue)]
