"""Items that clients were sent and send again. Data only; as loose as they come."""

import msgspec
from msgspec import Struct

from server.protocol.request import NULL


class FunctionCall(Struct, frozen=True):
    """`function_call`. Arguments are a text of JSON, and of some clients the JSON itself."""

    name: str
    arguments: msgspec.Raw = NULL
    call_id: str | int | None = None
    namespace: str | None = None


class CustomToolCall(Struct, frozen=True):
    """`custom_tool_call`."""

    name: str
    input: msgspec.Raw = NULL
    call_id: str | int | None = None
    namespace: str | None = None


class ToolOutput(Struct, frozen=True):
    """`function_call_output`, `custom_tool_call_output`."""

    output: msgspec.Raw = NULL
    call_id: str | int | None = None


class ReasoningItem(Struct, frozen=True):
    """`reasoning`. Content and summary come as lists of parts, as text, null, or not at all."""

    content: msgspec.Raw = NULL
    summary: msgspec.Raw = NULL
    encrypted_content: msgspec.Raw = NULL


class CompactionItem(Struct, frozen=True):
    """`compaction`."""

    encrypted_content: msgspec.Raw = NULL
