"""The output of a response while it streams: finished items, and at most one open item. Pure."""

from collections.abc import Iterator

from server.protocol.builtin_calls import McpCall
from server.protocol.events import Event, OutputItemDone
from server.protocol.output_items import Item
from server.protocol.response import Response
from server.stream.inputs import (
    ArgumentsAdded,
    ItemInput,
    McpCallFinished,
    McpListStarted,
    McpToolsListed,
    ReasoningAdded,
    ReasoningSealed,
    SummaryAdded,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
)
from server.stream.item_classes import class_of, open_item
from server.stream.open_item import NextNumber, Opening, OpenItem, Outcome
from server.stream.open_mcp_calls import OpenMcpCall, OpenMcpList
from server.stream.open_text_items import OpenReasoning


class ResponseOutput:
    """Items of a response, in their order. It gives them ids and indexes."""

    def __init__(self, response: Response, number: NextNumber) -> None:
        """Begin without items. `number` counts the events of the stream."""
        self.items: tuple[Item, ...] = ()
        """Items that have closed."""
        self._item: OpenItem | None = None
        self._number = number
        self._stem = response.id.removeprefix("resp_")
        self._summary = response.reasoning.summary

    @property
    def empty(self) -> bool:
        return self._item is None and not self.items

    @property
    def silent(self) -> bool:
        """True if no item is open, or if the open one has no events until it is complete."""
        return self._item is None or self._item.silent

    @property
    def pending_call(self) -> McpCall | None:
        """Call of an MCP tool that waits for its execution."""
        return self._item.call if isinstance(self._item, OpenMcpCall) and self._item.pending else None

    def events(self, input_: ItemInput) -> Iterator[Event]:
        match input_:
            case TextAdded(text, logprobs):
                yield from self._ensure_open(input_)
                yield from self._current.delta(text, logprobs)
            case ReasoningAdded(text) | SummaryAdded(text):
                yield from self._ensure_open(input_)
                yield from self._current.delta(text)
            case ReasoningSealed(content):
                assert isinstance(self._item, OpenReasoning), "only reasoning is sealed"
                self._item.encrypted_content = content
            case ToolCallStarted() | McpListStarted():
                yield from self.open(input_)
            case ArgumentsAdded(text):
                yield from self._current.delta(text)
            case ToolCallEnded():
                yield from self._end_arguments()
            case McpToolsListed() | McpCallFinished():
                yield from self._finish(input_)

    def open(self, input_: Opening) -> Iterator[Event]:
        """Complete the open item, and open the next one."""
        yield from self.close("completed")
        self._item = open_item(input_, self._stem, len(self.items), self._number, self._summary)
        yield from self._item.added()

    def close(self, status: Outcome) -> Iterator[Event]:
        """Close the open item, if there is one."""
        if self._item is None:
            return
        for event in self._item.done(status):
            if isinstance(event, OutputItemDone):
                self.items = (*self.items, event.item)
            yield event
        self._item = None

    def fail_list(self, error: str) -> None:
        """Add an error to the open item if it is the list of an MCP server's tools."""
        if isinstance(self._item, OpenMcpList):
            self._item.fail(error)

    @property
    def _current(self) -> OpenItem:
        assert self._item is not None, "an item is open"
        return self._item

    def _ensure_open(self, input_: Opening) -> Iterator[Event]:
        """Open an item of this kind unless it is open."""
        if not isinstance(self._item, class_of(input_)):
            yield from self.open(input_)

    def _end_arguments(self) -> Iterator[Event]:
        """Close the open call; the call of an MCP tool stays open until it returns."""
        if isinstance(self._item, OpenMcpCall):
            yield from self._item.arguments_done()
        else:
            yield from self.close("completed")

    def _finish(self, input_: McpToolsListed | McpCallFinished) -> Iterator[Event]:
        """Close the open list or call with what the MCP server returned."""
        if isinstance(input_, McpCallFinished):
            assert isinstance(self._item, OpenMcpCall), "only these calls are executed here"
            self._item.finish(input_)
        else:
            yield from self._ensure_open(input_)
            assert isinstance(self._item, OpenMcpList), "this input opens a list, or one is open"
            self._item.finish(input_)
        yield from self.close("completed")
