"""Output items and their parts. Data only."""

from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from server.protocol.builtin_calls import BuiltinCall, McpItem

MIN_LOGPROB = -9999.0
"""OpenAI's value for minus infinity, which JSON cannot express."""


class TopLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]


class Logprob(Struct, frozen=True):
    """Logprob of a token. openai-python's deltas have no `bytes`, but it accepts them."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


class OutputText(Struct, frozen=True, tag="output_text"):
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[Logprob, ...] = ()


class OutputMessage(Struct, frozen=True, tag="message"):
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    content: tuple[OutputText, ...]
    role: Literal["assistant"] = "assistant"


class ReasoningText(Struct, frozen=True, tag="reasoning_text"):
    text: str


class SummaryText(Struct, frozen=True, tag="summary_text"):
    text: str


class ReasoningItem(Struct, frozen=True, tag="reasoning"):
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    content: tuple[ReasoningText, ...]
    summary: tuple[SummaryText, ...] = ()
    encrypted_content: str | UnsetType = UNSET
    """The text, sealed for clients that send it back; never null, which only one of the two specifications allows."""


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


class CompactionItem(Struct, frozen=True, tag="compaction"):
    """Summary that stands for all items before it."""

    id: str
    encrypted_content: str


Item: TypeAlias = OutputMessage | ReasoningItem | FunctionCall | CustomToolCall | BuiltinCall | McpItem | CompactionItem
Part: TypeAlias = OutputText | ReasoningText
