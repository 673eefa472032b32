"""Read input items into entries of a prompt. Pure.

Clients replay items that this or another server sent, and a 4xx for history would block their conversation for good. So
the reader skips and logs unknown items, and accepts known items in every shape observed in clients. Only the content of
messages must be readable.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from engine.chat_template import Call, Message
from server.prompt.items import hosted_items, summary
from server.prompt.items.content import ContentReader
from server.prompt.items.entries import ItemPlace, Output, PlacedEntry, PromptEntry, ReasoningEntry, id_text
from server.prompt.items.references import kind_of, newest_of_user
from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.input_items import (
    InputCompactionItem,
    InputCustomToolCall,
    InputFunctionCall,
    InputReasoningItem,
    MessageItem,
    ToolOutput,
    as_text,
    replayed_text,
)
from server.protocol.request import TypeAndRole
from server.stream import decode_summary
from server.tools import qualified_name

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""API role -> template role. Templates of open models do not know `developer`."""


class InputReader:
    """Read items. `skipped` collects the names of unknown items and parts, for the log."""

    def __init__(self, found: Mapping[str, str] | None = None) -> None:
        """`found`: see `hosted_items.entries`."""
        self._found = found or {}
        self.skipped: list[str] = []
        self.content = ContentReader(self.skipped)
        self._in_newest_message = False

    def entries(self, raws: Sequence[msgspec.Raw], name: str, past: bool = False) -> Iterator[PlacedEntry]:
        """Yield the entries of items. Raises InvalidRequest.

        `name`: field of the list, for errors. `past`: True if the items were answered before.
        """
        last = len(raws) if past else newest_of_user(raws, name)
        for index, raw in enumerate(raws):
            self._in_newest_message = index == last
            place = f"{name}[{index}]"
            kind = kind_of(part(raw, TypeAndRole, place))
            for entry in self._entry(raw, kind, place):
                yield PlacedEntry(entry, ItemPlace(name, index, kind))

    def _entry(self, raw: msgspec.Raw, kind: str, place: str) -> Iterator[PromptEntry]:
        if (reader := READERS.get(kind)) is not None:
            yield from reader(self, raw, place)
        elif hosted := list(hosted_items.entries(raw, self._found)):
            yield from hosted
        else:
            self.skipped.append(f"item {kind or 'without type and role'}")

    def _message(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        item = part(raw, MessageItem, place)
        if item.role not in ROLES:
            raise InvalidRequest(
                f"`{place}.role` is {item.role!r}; it must be one of {', '.join(ROLES)}.", param=f"{place}.role"
            )
        yield Message(ROLES[item.role], self.content.text(item.content, f"{place}.content", self._in_newest_message))

    def _function_call(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        call = part(raw, InputFunctionCall, place)
        yield Call(id_text(call.call_id), qualified_name(call.name, call.namespace), as_text(call.arguments))

    def _custom_tool_call(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        call = part(raw, InputCustomToolCall, place)
        yield Call(id_text(call.call_id), qualified_name(call.name, call.namespace), as_text(call.input))

    def _output(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        item = part(raw, ToolOutput, place)
        id_ = id_text(item.call_id)
        name = qualified_name(item.name, item.namespace) if item.name and not id_ else ""
        yield Output(id_, self.content.output_text(item.output), name)

    def _reasoning(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        item = part(raw, InputReasoningItem, place)
        if text := replayed_text(item.content) or replayed_text(item.summary):
            yield ReasoningEntry(text)
        elif as_text(item.encrypted_content):
            self.skipped.append("item reasoning, encrypted by another server")

    def _compaction(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        item = part(raw, InputCompactionItem, place)
        text = decode_summary(as_text(item.encrypted_content))
        if text is None:
            self.skipped.append("item compaction, encrypted by another server")
        else:
            yield summary.render_summary(text)

    def _nothing(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        """Yield nothing for an item that concerns the tools or the settings of the request."""
        yield from ()


READERS: dict[str, Callable[[InputReader, msgspec.Raw, str], Iterator[PromptEntry]]] = {
    "message": InputReader._message,
    "function_call": InputReader._function_call,
    "function_call_output": InputReader._output,
    "custom_tool_call": InputReader._custom_tool_call,
    "custom_tool_call_output": InputReader._output,
    "reasoning": InputReader._reasoning,
    "compaction": InputReader._compaction,
    "additional_tools": InputReader._nothing,
    "compaction_trigger": InputReader._nothing,
    "configuration_update": InputReader._nothing,
}
