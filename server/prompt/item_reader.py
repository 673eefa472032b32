"""Read input items into entries of a prompt. Pure.

Clients replay items that this or another server sent, and a 4xx for history would block their conversation for good. So
the reader skips and logs unknown items, and accepts known items in every shape observed in clients. Only the content of
messages must be readable.
"""

import base64
import binascii
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from engine.chat_template import Call, Message
from server.prompt import hosted_items, summary
from server.prompt.hosted_items import Output, id_text
from server.protocol.errors import InvalidRequest
from server.protocol.fields import is_null
from server.protocol.input_items import (
    ChatFilePart,
    FilePart,
    InputCompactionItem,
    InputCustomToolCall,
    InputFunctionCall,
    InputReasoningItem,
    ItemReference,
    MessageItem,
    RefusalPart,
    ReplayedPart,
    TextPart,
    ToolOutput,
    as_text,
    replayed_parts,
    replayed_text,
)
from server.protocol.request import TypeAndRole, part
from server.stream import decode_summary
from server.tools import qualified_name

PLACEHOLDERS = {
    "input_image": "[image omitted: this model reads text]",
    "image_url": "[image omitted: this model reads text]",
    "image": "[image omitted: this model reads text]",
    "computer_screenshot": "[image omitted: this model reads text]",
    "input_audio": "[audio omitted: this model reads text]",
    "input_video": "[video omitted: this model reads text]",
    "input_file": "[file omitted: this model reads text]",
}
"""Text in place of parts of earlier turns that are not text, by type."""
ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""API role -> template role. Templates of open models do not know `developer`."""


class ReasoningEntry(Struct, frozen=True):
    """Reasoning before the assistant's next message or call."""

    text: str


class ItemPlace(Struct, frozen=True):
    """Place of an item in the request."""

    field: str
    index: int | None
    """Index in the field's list; None if the field is a text."""
    type: str


PromptEntry: TypeAlias = Message | Call | Output | ReasoningEntry


class InputReader:
    """Read items. `skipped` collects the names of unknown items and parts, for the log."""

    def __init__(self, found: Mapping[str, str] | None = None) -> None:
        """`found`: see `hosted_items.entries`."""
        self._found = found or {}
        self.skipped: list[str] = []
        self.places: list[ItemPlace] = []
        """Places of the items that the entries come from."""
        self.breakpoints: dict[str, tuple[int, ...]] = {}
        """Characters before each breakpoint, by the text that has breakpoints."""
        self.in_newest_message = False
        """True while the reader is in the newest message of the user. Only that message is rejected if a text model
        cannot read it. In older messages a placeholder replaces the part, since clients resend it with every turn."""

    def entries(self, raws: Sequence[msgspec.Raw], name: str, past: bool = False) -> Iterator[PromptEntry]:
        """Yield the entries of items. Raises InvalidRequest.

        `name`: field of the list, for errors. `past`: True if the items were answered before.
        """
        last = len(raws) if past else newest_of_user(raws, name)
        for index, raw in enumerate(raws):
            self.in_newest_message = index == last
            place = f"{name}[{index}]"
            kind = _kind(part(raw, TypeAndRole, place))
            for entry in self._entry(raw, kind, place):
                self.places.append(ItemPlace(name, index, kind))
                yield entry

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
        yield Message(ROLES[item.role], self.text(item.content, f"{place}.content"))

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
        yield Output(id_, self._output_text(item.output), name)

    def _output_text(self, raw: msgspec.Raw) -> str:
        """Return the text of an output, the texts of its parts, or its JSON. Skip images, since it is history."""
        if (parts := replayed_parts(raw)) is None:
            return as_text(raw)
        texts = [self._output_part(part) for part in parts]
        marked = [not is_null(part.prompt_cache_breakpoint) for part in parts]
        return self._joined(texts, marked)

    def _output_part(self, output: ReplayedPart) -> str:
        if output.text is not None:
            return output.text
        with suppress(binascii.Error, UnicodeDecodeError):
            if output.file_data is not None:
                return _data(output.file_data).decode()
        self.skipped.append(f"part {output.type} of an output")
        return PLACEHOLDERS.get(output.type, "")

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

    def text(self, content: str | list[msgspec.Raw] | None, place: str) -> str:
        """Return the text of a message's content. Raises InvalidRequest for a part that a text model cannot read."""
        if isinstance(content, str):
            return content
        before = len(self.skipped)
        text = self._content_text([(raw, f"{place}[{index}]") for index, raw in enumerate(content or ())])
        if self.in_newest_message and not text and (content is None or len(self.skipped) > before):
            skipped = f"; skipped: {', '.join(self.skipped[before:])}" if content else ""
            raise InvalidRequest(f"`{place}` has no text for the model to answer{skipped}.", param=place)
        return text

    def _content_text(self, parts: Sequence[tuple[msgspec.Raw, str]]) -> str:
        breakpoints = [part(raw, TypeAndRole, place).prompt_cache_breakpoint for raw, place in parts]
        text = self._joined([self._part(*each) for each in parts], [each is not None for each in breakpoints])
        if any(each is not None and each.ttl for each in breakpoints):
            self.skipped.append("prompt_cache_breakpoint.ttl")
        return text

    def _joined(self, texts: Sequence[str], marked: Sequence[bool]) -> str:
        """Return the joined texts of parts. Record the ends of the marked ones as breakpoints."""
        text = "".join(texts)
        if any(marked):
            self.breakpoints[text] = tuple(itertools.compress(itertools.accumulate(map(len, texts)), marked))
        return text

    def _part(self, raw: msgspec.Raw, place: str) -> str:
        match part(raw, TypeAndRole, place):
            case TypeAndRole("input_text" | "output_text" | "text"):
                return part(raw, TextPart, place).text or ""
            case TypeAndRole("refusal"):
                return part(raw, RefusalPart, place).refusal or ""
            case TypeAndRole("input_file"):
                return self._file(part(raw, FilePart, place), place)
            case TypeAndRole("file"):
                return self._file(part(raw, ChatFilePart, place).file, f"{place}.file")
            case TypeAndRole(str(kind)) if kind in PLACEHOLDERS:
                return self._placeholder(kind, place)
            case TypeAndRole(kind):
                self.skipped.append(f"part {kind or 'without type'}")
                return ""

    def _placeholder(self, kind: str, place: str) -> str:
        """Return the text in place of a part that is not text. Raises InvalidRequest."""
        if self.in_newest_message:
            raise InvalidRequest(f"`{place}` is of type {kind}; this model reads text only.", param=place)
        self.skipped.append(f"part {kind}")
        return PLACEHOLDERS[kind]

    def _file(self, file: FilePart, place: str) -> str:
        """Return the file's text, or a placeholder for it. Raises InvalidRequest."""
        try:
            return _file_text(file, place)
        except InvalidRequest:
            if self.in_newest_message:
                raise
            self.skipped.append("part input_file")
            return "[file omitted: this server reads text in `file_data` only]"


def newest_of_user(raws: Sequence[msgspec.Raw], name: str) -> int:
    """Return the index of the user's newest message; -1 if there is none. Raises InvalidRequest."""
    for index in reversed(range(len(raws))):
        if part(raws[index], TypeAndRole, f"{name}[{index}]").role == "user":
            return index
    return -1


def references(raws: Sequence[msgspec.Raw], name: str) -> dict[int, str]:
    """Return the id that each reference names, by the index of its item. Raises InvalidRequest."""
    ids: dict[int, str] = {}
    for index, raw in enumerate(raws):
        place = f"{name}[{index}]"
        kind = _kind(part(raw, TypeAndRole, place))
        if kind in ("item_reference", ""):
            id_ = part(raw, ItemReference, place).id
            if kind and id_ is None:
                raise InvalidRequest(f"`{place}` references no item: `id` is missing.", param=f"{place}.id")
            if id_ is not None:
                ids[index] = id_
    return ids


def _kind(item: TypeAndRole) -> str:
    """Return the type of an item: "message" if it has only a role; empty if it has neither and may be a reference."""
    return item.type or ("message" if item.role is not None else "")


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


def _file_text(file: FilePart, place: str) -> str:
    """Return the file's text. The server fetches no files, so a file by id or URL raises InvalidRequest."""
    if file.file_data is None:
        raise InvalidRequest(f"`{place}` must contain its text in `file_data`: ids and URLs are not read.", param=place)
    try:
        return _data(file.file_data).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(f"`{place}.file_data` is not UTF-8 text.", param=f"{place}.file_data") from error


def _data(url: str) -> bytes:
    """Return the bytes of a data URL (RFC 2397), or of the text if it is none. Raises binascii.Error."""
    if not url.startswith("data:"):
        return url.encode()
    kind, comma, data = url.partition(",")
    if not comma:
        raise binascii.Error("a data URL without its comma")
    raw = unquote_to_bytes(data)
    return base64.b64decode(raw, validate=True) if kind.endswith(";base64") else raw
