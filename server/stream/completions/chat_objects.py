"""Objects of Chat Completions: the whole answer, and the chunks of a streamed one. Data only."""

from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from server.protocol.events import ErrorPayload, PromptProgress
from server.protocol.output_items import Logprob
from server.stream.completions.chunk_times import AnswerExtensions

CutReason: TypeAlias = Literal["length", "content_filter"]
"""Reason why an answer is not complete."""
ChatFinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int


class CompletionTokensDetails(Struct, frozen=True):
    reasoning_tokens: int
    forced_tokens: int | UnsetType = UNSET


class ChatUsage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class FunctionDelta(Struct, frozen=True, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class CustomToolDelta(Struct, frozen=True, omit_defaults=True):
    name: str | None = None
    input: str | None = None


class CallDelta(Struct, frozen=True, omit_defaults=True):
    index: int | UnsetType = UNSET
    """Index of the call in a stream; unset in complete responses."""
    id: str | None = None
    type: Literal["function", "custom"] | None = None
    function: FunctionDelta | None = None
    custom: CustomToolDelta | None = None


class Delta(Struct, frozen=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The text of `reasoning_content` under the name of vLLM and OpenRouter; OpenAI has neither field."""
    tool_calls: tuple[CallDelta, ...] | None = None


class ChatLogprobs(Struct, frozen=True):
    content: tuple[Logprob, ...]
    refusal: None = None


class ChunkChoice(Struct, frozen=True):
    delta: Delta
    finish_reason: ChatFinishReason | None = None
    index: int = 0
    logprobs: ChatLogprobs | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: ChatUsage | UnsetType | None = UNSET
    """Usage if the request asks for it: null except in the last chunk, which has no choices."""
    service_tier: Literal["flex"] | UnsetType = UNSET
    """Set for answers of the batch lane."""
    responsed: AnswerExtensions | UnsetType = UNSET
    """Facts about the answer, in the chunk with the reason for the end."""
    prompt_progress: PromptProgress | UnsetType = UNSET
    """Progress of the prompt if the request asks for it (`return_progress`, as in llama.cpp's server)."""


class Failed(Struct, frozen=True):
    """Error frame, which openai-python raises as an APIError and other clients take for the end."""

    error: ErrorPayload


class ChatReply(Struct, frozen=True):
    content: str | None
    """None if the response has calls but no text."""
    refusal: None = None
    role: Literal["assistant"] = "assistant"
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: tuple[CallDelta, ...] | UnsetType = UNSET


class CompletionChoice(Struct, frozen=True):
    message: ChatReply
    finish_reason: ChatFinishReason
    index: int = 0
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    service_tier: Literal["flex"] | UnsetType = UNSET
    usage: ChatUsage
    responsed: AnswerExtensions | UnsetType = UNSET
