"""One tagged Struct per SSE event. Data only: see `server.protocol.response` for the rules of their fields."""

from typing import TypeAlias

from msgspec import UNSET, Struct, UnsetType

from server.protocol.builtin_calls import BuiltinCallEvent, McpEvent
from server.protocol.output_items import Item, Logprob, Part, SummaryText
from server.protocol.response import Response


class _Numbered(Struct, frozen=True):
    sequence_number: int


class ResponseCreated(_Numbered, frozen=True, tag="response.created"):
    response: Response


class ResponseQueued(_Numbered, frozen=True, tag="response.queued"):
    response: Response


class PromptProgress(Struct, frozen=True):
    """Numbers of prompt tokens, with llama.cpp's names: `processed` are in the KV cache, `cache` of them from before.

    The defaults serve streams that an earlier version stored.
    """

    total: int = 0
    cache: int = 0
    processed: int = 0
    time_ms: int = 0
    """Milliseconds since the response got its slot."""


class ResponseInProgress(_Numbered, frozen=True, tag="response.in_progress"):
    response: Response
    prompt_progress: PromptProgress | UnsetType = UNSET
    """Progress if the request asks for it (`return_progress`); no specification has this field."""


class ResponseCompleted(_Numbered, frozen=True, tag="response.completed"):
    response: Response


class ResponseIncomplete(_Numbered, frozen=True, tag="response.incomplete"):
    response: Response


class ResponseFailed(_Numbered, frozen=True, tag="response.failed"):
    response: Response


class OutputItemAdded(_Numbered, frozen=True, tag="response.output_item.added"):
    output_index: int
    item: Item


class OutputItemDone(_Numbered, frozen=True, tag="response.output_item.done"):
    output_index: int
    item: Item


class ContentPartAdded(_Numbered, frozen=True, tag="response.content_part.added"):
    item_id: str
    output_index: int
    content_index: int
    part: Part


class ContentPartDone(_Numbered, frozen=True, tag="response.content_part.done"):
    item_id: str
    output_index: int
    content_index: int
    part: Part


class OutputTextDelta(_Numbered, frozen=True, tag="response.output_text.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: tuple[Logprob, ...] = ()


class OutputTextDone(_Numbered, frozen=True, tag="response.output_text.done"):
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: tuple[Logprob, ...] = ()


class ReasoningTextDelta(_Numbered, frozen=True, tag="response.reasoning_text.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ReasoningTextDone(_Numbered, frozen=True, tag="response.reasoning_text.done"):
    item_id: str
    output_index: int
    content_index: int
    text: str


class ReasoningSummaryPartAdded(_Numbered, frozen=True, tag="response.reasoning_summary_part.added"):
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class ReasoningSummaryTextDelta(_Numbered, frozen=True, tag="response.reasoning_summary_text.delta"):
    item_id: str
    output_index: int
    summary_index: int
    delta: str


class ReasoningSummaryTextDone(_Numbered, frozen=True, tag="response.reasoning_summary_text.done"):
    item_id: str
    output_index: int
    summary_index: int
    text: str


class ReasoningSummaryPartDone(_Numbered, frozen=True, tag="response.reasoning_summary_part.done"):
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class FunctionCallArgumentsDelta(_Numbered, frozen=True, tag="response.function_call_arguments.delta"):
    item_id: str
    output_index: int
    delta: str


class FunctionCallArgumentsDone(_Numbered, frozen=True, tag="response.function_call_arguments.done"):
    item_id: str
    output_index: int
    name: str
    arguments: str


class CustomToolCallInputDelta(_Numbered, frozen=True, tag="response.custom_tool_call_input.delta"):
    item_id: str
    output_index: int
    delta: str


class CustomToolCallInputDone(_Numbered, frozen=True, tag="response.custom_tool_call_input.done"):
    item_id: str
    output_index: int
    input: str


class CompactionCompacting(_Numbered, frozen=True, tag="response.compaction.compacting"):
    """The model writes the summary of a compaction item."""

    item_id: str
    output_index: int


class ErrorPayload(Struct, frozen=True):
    type: str
    code: str | None
    message: str
    param: str | None


class Error(_Numbered, frozen=True, tag="error"):
    """Error event in two forms: flat as in OpenAI's types, nested as in OpenAI's live API and Open Responses."""

    message: str
    code: str | None
    param: str | None
    error: ErrorPayload


Event: TypeAlias = (
    ResponseCreated
    | ResponseQueued
    | ResponseInProgress
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | ReasoningSummaryPartAdded
    | ReasoningSummaryTextDelta
    | ReasoningSummaryTextDone
    | ReasoningSummaryPartDone
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | CustomToolCallInputDelta
    | CustomToolCallInputDone
    | BuiltinCallEvent
    | McpEvent
    | CompactionCompacting
    | Error
)

TERMINAL = (ResponseCompleted, ResponseIncomplete, ResponseFailed)
"""Events that end a stream."""
