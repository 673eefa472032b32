"""The Response object, its items, and one tagged Struct per SSE event. Data only.

Fields and their order follow openai-python's types and Open Responses' schema (2026-04-24), and both accept every
object: a field that either requires is always present, and a field that either forbids to be null is never null.
"""

from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from server.protocol.builtin_calls import BuiltinCallEvent
from server.protocol.extensions import Extensions
from server.protocol.formats import PLAIN, Format
from server.protocol.output_items import Item, Logprob, Part
from server.protocol.prompt_cache import AppliedCacheOptions, Diagnostics, Retention
from server.protocol.tools import ToolChoice, ToolEcho

Status: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class InputTokensDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Struct, frozen=True):
    reasoning_tokens: int
    forced_tokens: int | UnsetType = UNSET
    """Extension: tokens that a schema or a call format made certain; unset without any."""


class Usage(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ErrorInfo(Struct, frozen=True):
    code: str
    message: str


class IncompleteDetails(Struct, frozen=True):
    reason: str


class TextConfig(Struct, frozen=True):
    format: Format = PLAIN
    verbosity: str | UnsetType = UNSET
    """Echo of the request; it has no effect on local models."""


class Reasoning(Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None


class ConversationReference(Struct, frozen=True):
    id: str


class Response(Struct, frozen=True, kw_only=True):
    """Response object. It echoes the effective settings; fields with a constant are not supported (yet)."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status = "in_progress"
    background: bool = False
    completed_at: int | None = None
    conversation: ConversationReference | UnsetType = UNSET
    """Conversation that gets the input and output items at the end, unless the response fails."""
    error: ErrorInfo | None = None
    frequency_penalty: float = 0.0
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = {}
    model: str
    output: tuple[Item, ...] = ()
    parallel_tool_calls: bool = True
    presence_penalty: float = 0.0
    previous_response_id: str | None = None
    prompt_cache_diagnostics: Diagnostics | UnsetType = UNSET
    prompt_cache_key: str | None = None
    prompt_cache_options: AppliedCacheOptions | UnsetType = UNSET
    prompt_cache_retention: Retention | UnsetType = UNSET
    reasoning: Reasoning = Reasoning()
    safety_identifier: str | None = None
    service_tier: Literal["default", "flex"] = "default"
    """Lane that the response had: `flex` is the batch lane."""
    store: bool = False
    temperature: float
    text: TextConfig = TextConfig()
    tool_choice: ToolChoice = "auto"
    tools: tuple[ToolEcho, ...] = ()
    top_logprobs: int = 0
    top_p: float
    truncation: Literal["auto", "disabled"] = "disabled"
    usage: Usage | None = None
    user: str | UnsetType = UNSET
    responsed: Extensions | UnsetType = UNSET


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
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | CustomToolCallInputDelta
    | CustomToolCallInputDone
    | BuiltinCallEvent
    | Error
)

TERMINAL = (ResponseCompleted, ResponseIncomplete, ResponseFailed)
"""Events that end a stream."""
