"""Calls of functions and custom tools while they stream. Pure."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from server.protocol.events import (
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Event,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    OutputItemAdded,
    OutputItemDone,
)
from server.protocol.output_items import CustomToolCall, FunctionCall, Logprob
from server.stream.decoders import CustomInputDecoder
from server.stream.inputs import ToolCallStarted
from server.stream.open_item import NextNumber, Opening, Outcome

C = TypeVar("C", FunctionCall, CustomToolCall)


class OpenCall(Generic[C]):
    """Tool call of either kind."""

    kind: type[C]
    silent = False

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        assert isinstance(input_, ToolCallStarted), "only this input opens a call"
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        # The call id pairs the call with its output; it differs from the item's id.
        call_id = f"call_{id_.partition('_')[2]}"
        self._item: C = self.kind(id_, call_id, input_.name, "", "in_progress", input_.namespace or UNSET)

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, self._item)


class OpenFunctionCall(OpenCall[FunctionCall]):
    """Function call, whose arguments stream as the model writes them."""

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
    """Call of a custom tool: for the model a function with the parameter `input`, for the client a text."""

    prefix = "ctc"
    kind = CustomToolCall

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        super().__init__(id_, output_index, number, input_)
        self._decoder = CustomInputDecoder()
        self._streams = isinstance(input_, ToolCallStarted) and input_.streams

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(self._decoder.feed(text))
        if self._streams:
            yield from self._input_delta(self._texts[-1])

    def done(self, status: Outcome) -> Iterator[Event]:
        self._texts.append(self._decoder.finish())
        item = replace(self._item, input="".join(self._texts), status=status)
        yield from self._input_delta(self._texts[-1] if self._streams else item.input)
        yield CustomToolCallInputDone(self._number(), item.id, self._index, item.input)
        yield OutputItemDone(self._number(), self._index, item)

    def _input_delta(self, text: str) -> Iterator[Event]:
        if text:
            yield CustomToolCallInputDelta(self._number(), self._item.id, self._index, text)
