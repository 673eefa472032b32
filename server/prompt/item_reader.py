"""Input items -> what each of them says. Pure.

Clients replay what they were sent, by us or by others, and a 4xx on history would lock them out for good: what is not
known is skipped and told, and known items are read in all shapes that were seen. What a message says must be readable.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from engine.chat_template import Call, Message
from server.prompt import hosted_items, summary
from server.prompt.hosted_items import Output, id_text
from server.protocol.errors import InvalidRequest
from server.protocol.input_items import CompactionItem, CustomToolCall, FunctionCall, ReasoningItem, ToolOutput
from server.protocol.request import (
    ChatFilePart,
    FilePart,
    ItemReference,
    LoosePart,
    MessageItem,
    RefusalPart,
    TextPart,
    Typed,
    as_text,
    loose_parts,
    loose_text,
    part,
)
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
"""Text that stands where an earlier turn had something that isn't text."""
ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""The API's roles -> the templates'. Templates of open models don't know `developer`."""


class ReasoningText(Struct, frozen=True):
    """Reasoning, before what the assistant says or calls next."""

    text: str


PromptEntry: TypeAlias = Message | Call | Output | ReasoningText


class InputReader:
    """Reads items; `skipped` gathers what is not known, for the log."""

    def __init__(self) -> None:
        self.skipped: list[str] = []
        self.newest = False
        """True while the newest message of the user is read: it alone may be refused for what a text model can't
        read. Elsewhere a placeholder stands where something was, since the client sends it again with every turn."""

    def entries(self, raws: Sequence[msgspec.Raw], name: str, past: bool = False) -> Iterator[PromptEntry]:
        """`name` of the list, for errors; `past`: it was answered already. Raises InvalidRequest."""
        last = len(raws) if past else newest_of_user(raws, name)
        for index, raw in enumerate(raws):
            self.newest = index == last
            yield from self._entry(raw, f"{name}[{index}]")

    def _entry(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        kind = _kind(part(raw, Typed, place))
        if (read := READERS.get(kind)) is not None:
            yield from read(self, raw, place)
        elif found := list(hosted_items.entries(raw)):
            yield from found
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
        call = part(raw, FunctionCall, place)
        yield Call(id_text(call.call_id), qualified_name(call.name, call.namespace), as_text(call.arguments))

    def _custom_tool_call(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        call = part(raw, CustomToolCall, place)
        yield Call(id_text(call.call_id), qualified_name(call.name, call.namespace), as_text(call.input))

    def _output(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        item = part(raw, ToolOutput, place)
        yield Output(id_text(item.call_id), self._output_text(item.output))

    def _output_text(self, raw: msgspec.Raw) -> str:
        """A text, the texts of parts, or whatever JSON it is. Images in it are skipped: it is history."""
        if (parts := loose_parts(raw)) is None:
            return as_text(raw)
        return "".join(self._output_part(said) for said in parts)

    def _output_part(self, said: LoosePart) -> str:
        if said.text is not None:
            return said.text
        with suppress(binascii.Error, UnicodeDecodeError):
            if said.file_data is not None:
                return _data(said.file_data).decode()
        self.skipped.append(f"part {said.type} of an output")
        return PLACEHOLDERS.get(said.type, "")

    def _reasoning(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        item = part(raw, ReasoningItem, place)
        if text := loose_text(item.content) or loose_text(item.summary):
            yield ReasoningText(text)
        elif as_text(item.encrypted_content):
            self.skipped.append("item reasoning, encrypted by somebody else")

    def _compaction(self, raw: msgspec.Raw, place: str) -> Iterator[PromptEntry]:
        item = part(raw, CompactionItem, place)
        text = summary.decode_summary(as_text(item.encrypted_content))
        if text is None:
            self.skipped.append("item compaction, encrypted by somebody else")
        else:
            yield summary.render_summary(text)

    def text(self, content: str | list[msgspec.Raw] | None, place: str) -> str:
        """Raises InvalidRequest where a part can't be read by a text model."""
        if isinstance(content, str):
            return content
        before = len(self.skipped)
        text = "".join(self._part(raw, f"{place}[{index}]") for index, raw in enumerate(content or ()))
        if self.newest and not text and (content is None or len(self.skipped) > before):
            skipped = f"; skipped: {', '.join(self.skipped[before:])}" if content else ""
            raise InvalidRequest(f"`{place}` has no text for the model to answer{skipped}.", param=place)
        return text

    def _part(self, raw: msgspec.Raw, place: str) -> str:
        match part(raw, Typed, place):
            case Typed("input_text" | "output_text" | "text"):
                return part(raw, TextPart, place).text or ""
            case Typed("refusal"):
                return part(raw, RefusalPart, place).refusal or ""
            case Typed("input_file"):
                return self._file(part(raw, FilePart, place), place)
            case Typed("file"):
                return self._file(part(raw, ChatFilePart, place).file, f"{place}.file")
            case Typed(str(kind)) if kind in PLACEHOLDERS:
                if self.newest:
                    raise InvalidRequest(f"`{place}` is an {kind}; this model reads text only.", param=place)
                self.skipped.append(f"part {kind}")
                return PLACEHOLDERS[kind]
            case Typed(kind):
                self.skipped.append(f"part {kind or 'without type'}")
                return ""

    def _file(self, file: FilePart, place: str) -> str:
        """The file's text, or a placeholder. Raises InvalidRequest."""
        try:
            return _file_text(file, place)
        except InvalidRequest:
            if self.newest:
                raise
            self.skipped.append("part input_file")
            return "[file omitted: this server reads text in `file_data` only]"


def newest_of_user(raws: Sequence[msgspec.Raw], name: str) -> int:
    """Index of the user's newest message; -1 if there is none. Raises InvalidRequest."""
    for index in reversed(range(len(raws))):
        if part(raws[index], Typed, f"{name}[{index}]").role == "user":
            return index
    return -1


def references(raws: Sequence[msgspec.Raw], name: str) -> dict[int, str]:
    """Which of the items are references, and the ids that they refer to. Raises InvalidRequest."""
    found: dict[int, str] = {}
    for index, raw in enumerate(raws):
        place = f"{name}[{index}]"
        kind = _kind(part(raw, Typed, place))
        if kind in ("item_reference", ""):
            id_ = part(raw, ItemReference, place).id
            if kind and id_ is None:
                raise InvalidRequest(f"`{place}` refers to nothing: `id` is missing.", param=f"{place}.id")
            if id_ is not None:
                found[index] = id_
    return found


def _kind(item: Typed) -> str:
    """A message may come without its type; empty for what has neither, which may be a reference."""
    return item.type or ("message" if item.role is not None else "")


READERS: dict[str, Callable[[InputReader, msgspec.Raw, str], Iterator[PromptEntry]]] = {
    "message": InputReader._message,
    "function_call": InputReader._function_call,
    "function_call_output": InputReader._output,
    "custom_tool_call": InputReader._custom_tool_call,
    "custom_tool_call_output": InputReader._output,
    "reasoning": InputReader._reasoning,
    "compaction": InputReader._compaction,
}


def _file_text(file: FilePart, place: str) -> str:
    """The file's text. A file by id or URL can't be had here: nothing is ever fetched for a client."""
    if file.file_data is None:
        raise InvalidRequest(f"`{place}` must carry its text in `file_data`; no other source is read.", param=place)
    try:
        return _data(file.file_data).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(f"`{place}.file_data` is not UTF-8 text.", param=f"{place}.file_data") from error


def _data(url: str) -> bytes:
    """The bytes of a data URL (RFC 2397), or of the text itself. Raises binascii.Error."""
    if not url.startswith("data:"):
        return url.encode()
    kind, comma, data = url.partition(",")
    if not comma:
        raise binascii.Error("a data URL without its comma")
    raw = unquote_to_bytes(data)
    return base64.b64decode(raw, validate=True) if kind.endswith(";base64") else raw
