"""Output items that clients send back as input, decoded leniently. Data only."""

import msgspec
from msgspec import Struct

from server.protocol.request import NULL


class InputFunctionCall(Struct, frozen=True):
    """Item `function_call`. Arguments are JSON text; some clients send the JSON itself."""

    name: str
    arguments: msgspec.Raw = NULL
    call_id: str | int | None = None
    namespace: str | None = None


class InputCustomToolCall(Struct, frozen=True):
    """Item `custom_tool_call`."""

    name: str
    input: msgspec.Raw = NULL
    call_id: str | int | None = None
    namespace: str | None = None


class ToolOutput(Struct, frozen=True):
    """Item `function_call_output` or `custom_tool_call_output`. Outputs of asynchronous tools may have no `call_id`."""

    output: msgspec.Raw = NULL
    call_id: str | int | None = None
    name: str | None = None
    namespace: str | None = None


class InputReasoningItem(Struct, frozen=True):
    """Item `reasoning`. Content and summary may be lists of parts, text, null, or missing."""

    content: msgspec.Raw = NULL
    summary: msgspec.Raw = NULL
    encrypted_content: msgspec.Raw = NULL


class InputCompactionItem(Struct, frozen=True):
    """Item `compaction`."""

    encrypted_content: msgspec.Raw = NULL
