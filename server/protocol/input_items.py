"""Input items and their parts. Items that a server sent before are decoded leniently. Data only."""

import msgspec
from msgspec import Struct

from server.protocol.request import NULL_DEFAULT


class InputFunctionCall(Struct, frozen=True):
    """Item `function_call`. Arguments are JSON text; some clients send the JSON itself."""

    name: str
    arguments: msgspec.Raw = NULL_DEFAULT
    call_id: str | int | None = None
    namespace: str | None = None


class InputCustomToolCall(Struct, frozen=True):
    """Item `custom_tool_call`."""

    name: str
    input: msgspec.Raw = NULL_DEFAULT
    call_id: str | int | None = None
    namespace: str | None = None


class ToolOutput(Struct, frozen=True):
    """Item `function_call_output` or `custom_tool_call_output`. Outputs of asynchronous tools may have no `call_id`."""

    output: msgspec.Raw = NULL_DEFAULT
    call_id: str | int | None = None
    name: str | None = None
    namespace: str | None = None


class InputReasoningItem(Struct, frozen=True):
    """Item `reasoning`. Content and summary may be lists of parts, text, null, or missing."""

    content: msgspec.Raw = NULL_DEFAULT
    summary: msgspec.Raw = NULL_DEFAULT
    encrypted_content: msgspec.Raw = NULL_DEFAULT


class InputCompactionItem(Struct, frozen=True):
    """Item `compaction`."""

    encrypted_content: msgspec.Raw = NULL_DEFAULT


class ItemReference(Struct, frozen=True):
    """Item `item_reference`, with or without `type`."""

    id: str | None = None


class MessageItem(Struct, frozen=True):
    """Item `message`, with or without `type`."""

    role: str
    content: str | list[msgspec.Raw] | None = None


class TextPart(Struct, frozen=True):
    """Part `input_text`, `output_text` or `text`."""

    text: str | None


class RefusalPart(Struct, frozen=True):
    refusal: str | None


class FilePart(Struct, frozen=True):
    """Part `input_file`. `file_data` is a data URL or the text itself."""

    file_data: str | None = None
    filename: str | None = None


class ChatFilePart(Struct, frozen=True):
    """Part `file` of Chat Completions."""

    file: FilePart


class ReplayedPart(Struct, frozen=True):
    """Part of an item that the client sends back."""

    type: str
    text: str | None = None
    file_data: str | None = None
    prompt_cache_breakpoint: msgspec.Raw = NULL_DEFAULT


class ReplayedText(Struct, frozen=True):
    text: str = ""


_replayed_parts = msgspec.json.Decoder(list[ReplayedPart])
_replayed_texts = msgspec.json.Decoder(str | list[str | ReplayedText] | None)
_text = msgspec.json.Decoder(str | None)


def as_text(raw: msgspec.Raw) -> str:
    """Return a text unchanged, an empty text for null, and the JSON of other values."""
    try:
        return _text.decode(raw) or ""
    except msgspec.ValidationError:
        return bytes(raw).decode()


def replayed_text(raw: msgspec.Raw) -> str:
    """Return a text, or the joined texts of a list; empty if there are none."""
    try:
        texts = _replayed_texts.decode(raw) or ""
    except (msgspec.ValidationError, RecursionError):
        return ""
    if isinstance(texts, str):
        return texts
    return "\n\n".join(filter(None, (part if isinstance(part, str) else part.text for part in texts)))


def replayed_parts(raw: msgspec.Raw) -> list[ReplayedPart] | None:
    """Return the parts of a list; None if the value is not a list of parts."""
    try:
        return _replayed_parts.decode(raw)
    except (msgspec.ValidationError, RecursionError):
        return None
