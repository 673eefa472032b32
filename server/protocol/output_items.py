"""Output items besides messages. Data only."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class ReasoningText(Struct, frozen=True, tag="reasoning_text"):
    text: str


class ReasoningItem(Struct, frozen=True, tag="reasoning"):
    """Reasoning item, without `encrypted_content`: only one of the two specifications allows it to be null."""

    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    content: tuple[ReasoningText, ...]
    summary: tuple[()] = ()


class FunctionCall(Struct, frozen=True, tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]
    namespace: str | UnsetType = UNSET
    """Namespace of the function, if it has one."""


class CustomToolCall(Struct, frozen=True, tag="custom_tool_call"):
    id: str
    call_id: str
    name: str
    input: str
    status: Literal["in_progress", "completed", "incomplete"]
    namespace: str | UnsetType = UNSET
