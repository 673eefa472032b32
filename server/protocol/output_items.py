"""What a response's output may have besides messages. Data only."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class ReasoningText(Struct, frozen=True, tag="reasoning_text"):
    text: str


class ReasoningItem(Struct, frozen=True, tag="reasoning"):
    """Without `encrypted_content`, which one authority allows to be null, and the other doesn't."""

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
    """Only of functions that are in one."""


class CustomToolCall(Struct, frozen=True, tag="custom_tool_call"):
    id: str
    call_id: str
    name: str
    input: str
    status: Literal["in_progress", "completed", "incomplete"]
    namespace: str | UnsetType = UNSET
