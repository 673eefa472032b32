"""Items while they stream: one class per kind, which opens, takes deltas and closes (Open Responses, "Items are
streamable"). Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from server.protocol.events import (
    ContentPartAdded,
    ContentPartDone,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Event,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    ReasoningSummaryPartAdded,
    ReasoningSummaryPartDone,
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
)
from server.protocol.output_items import (
    CustomToolCall,
    FunctionCall,
    Logprob,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
)
from server.stream.compaction_item import OpenCompaction
from server.stream.decoders import CustomInputDecoder
from server.stream.inputs import (
    McpListStarted,
    McpToolsListed,
    ReasoningAdded,
    SummaryAdded,
    TextAdded,
    ToolCallStarted,
)
from server.stream.open_builtin_calls import BUILTIN_CALLS, BuiltinCallClass
from server.stream.open_mcp_calls import OpenMcpApproval, OpenMcpCall, OpenMcpList
from server.stream.reasoning_summary import summary_parts

C = TypeVar("C", FunctionCall, CustomToolCall)
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


class OpenMessage:
    """A message with one text part."""

    prefix = "msg"
    silent = False

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        self._logprobs: list[Logprob] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, OutputMessage(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, OutputText(""))

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        self._logprobs += logprobs
        yield OutputTextDelta(self._number(), self._id, self._index, 0, text, tuple(logprobs))

    def done(self, status: Outcome) -> Iterator[Event]:
        part = OutputText("".join(self._texts), logprobs=tuple(self._logprobs))
        yield OutputTextDone(self._number(), self._id, self._index, 0, part.text, part.logprobs)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, OutputMessage(self._id, status, (part,)))


class OpenReasoning:
    """Reasoning item with one text part. The parts of its summary follow the text (Open Responses, "Streaming")."""

    prefix = "rs"
    silent = False

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        self.summary: str | None = None
        """Kind of the summary; None for no summary."""
        self.encrypted_content: str | UnsetType = UNSET

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
        summary = tuple(map(SummaryText, summary_parts(part.text, self.summary)))
        for at, each in enumerate(summary):
            yield ReasoningSummaryPartAdded(self._number(), self._id, self._index, at, SummaryText(""))
            yield ReasoningSummaryTextDelta(self._number(), self._id, self._index, at, each.text)
            yield ReasoningSummaryTextDone(self._number(), self._id, self._index, at, each.text)
            yield ReasoningSummaryPartDone(self._number(), self._id, self._index, at, each)
        item = ReasoningItem(self._id, status, (part,), summary, self.encrypted_content)
        yield OutputItemDone(self._number(), self._index, item)


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


ItemClass: TypeAlias = (
    type[OpenMessage]
    | type[OpenReasoning]
    | type[OpenCompaction]
    | type[OpenFunctionCall]
    | type[OpenCustomCall]
    | BuiltinCallClass
    | type[OpenMcpCall]
    | type[OpenMcpApproval]
    | type[OpenMcpList]
)
ITEM_CLASSES: dict[type[Opening], ItemClass] = {
    TextAdded: OpenMessage,
    ReasoningAdded: OpenReasoning,
    SummaryAdded: OpenCompaction,
    ToolCallStarted: OpenFunctionCall,
    McpListStarted: OpenMcpList,
    McpToolsListed: OpenMcpList,
}


def open_item(input_: Opening, stem: str, output_index: int, number: NextNumber, summary: str | None) -> OpenItem:
    """Open an item. Its id derives from the response's `stem`, so that the same inputs produce the same bytes.

    `summary`: kind of the summary of reasoning.
    """
    item_class = class_of(input_)
    item = item_class(f"{item_class.prefix}_{stem}{output_index:02}", output_index, number, input_)
    if isinstance(item, OpenReasoning):
        item.summary = summary
    return item


def class_of(input_: Opening) -> ItemClass:
    match input_:
        case ToolCallStarted(builtin="mcp"):
            return OpenMcpCall
        case ToolCallStarted(builtin="mcp_approval"):
            return OpenMcpApproval
        case ToolCallStarted(builtin="shell" | "local_shell" | "apply_patch" | "tool_search" as name):
            return BUILTIN_CALLS[name]
        case ToolCallStarted(custom=True):
            return OpenCustomCall
    return ITEM_CLASSES[type(input_)]
