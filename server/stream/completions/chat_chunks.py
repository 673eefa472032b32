"""Conversion of a response and its events to Chat Completions. Pure."""

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from server.protocol import sse
from server.protocol.events import (
    CustomToolCallInputDelta,
    Error,
    ErrorPayload,
    Event,
    FunctionCallArgumentsDelta,
    OutputItemAdded,
    OutputTextDelta,
    PromptProgress,
    ReasoningTextDelta,
    ResponseCompleted,
    ResponseCreated,
    ResponseIncomplete,
    ResponseInProgress,
)
from server.protocol.output_items import CustomToolCall, FunctionCall, Item, Logprob, OutputMessage, ReasoningItem
from server.protocol.response import Response, Usage
from server.stream.completions.chunk_times import AnswerExtensions, ChunkNumbers, whole_extensions

ChatFinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]


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


class ChatChunkEncoder:
    """Encoder of one response's frames, in the order of its events."""

    def __init__(self, first: Response, include_usage: bool) -> None:
        self._template = ChatChunk(
            id=_id(first),
            created=first.created_at,
            model=first.model,
            choices=(),
            service_tier=_tier(first),
            usage=None if include_usage else UNSET,
        )
        self._calls = 0
        self._numbers = ChunkNumbers()

    def encode(self, events: Iterable[Event]) -> bytes:
        """Return the frames of the events, without the final `sse.DONE`."""
        return self._numbers.join(events, self._frames)

    def _frames(self, event: Event) -> Iterator[bytes]:
        match event:
            case ResponseCreated():
                yield self._chunk(Delta(role="assistant", content=""))
            case ResponseInProgress(prompt_progress=PromptProgress() as progress):
                yield sse.frame(replace(self._template, prompt_progress=progress))
            case OutputTextDelta(delta=text, logprobs=logprobs):
                yield self._chunk(Delta(content=text), logprobs=logprobs)
            case ReasoningTextDelta(delta=text):
                yield self._chunk(Delta(reasoning_content=text, reasoning=text))
            case OutputItemAdded(item=FunctionCall() | CustomToolCall() as item):
                self._calls += 1
                yield self._call(replace(_call_of(item), index=self._calls - 1))
            case FunctionCallArgumentsDelta(delta=text):
                yield self._call(CallDelta(self._calls - 1, function=FunctionDelta(arguments=text)))
            case CustomToolCallInputDelta(delta=text):
                yield self._call(CallDelta(self._calls - 1, custom=CustomToolDelta(input=text)))
            case ResponseCompleted(_, response) | ResponseIncomplete(_, response):
                yield from self._end(response)
            case Error(error=payload):
                yield sse.frame(Failed(payload))

    def _end(self, response: Response) -> Iterator[bytes]:
        yield self._chunk(Delta(), _finish_reason(response), responsed=self._numbers.extensions(response))
        if self._template.usage is None and response.usage is not None:
            yield sse.frame(replace(self._template, usage=chat_usage(response.usage)))

    def _call(self, call: CallDelta) -> bytes:
        return self._chunk(Delta(tool_calls=(call,)))

    def _chunk(
        self,
        delta: Delta,
        finish: ChatFinishReason | None = None,
        logprobs: tuple[Logprob, ...] = (),
        responsed: AnswerExtensions | UnsetType = UNSET,
    ) -> bytes:
        choice = ChunkChoice(delta, finish, logprobs=_logprobs(logprobs))
        return sse.frame(replace(self._template, choices=(choice,), responsed=responsed))


def completion(response: Response) -> ChatCompletion:
    """Return the completion of a response that is completed or incomplete."""
    assert response.usage is not None, "a response that has ended has its usage"
    parts = [part for item in response.output if isinstance(item, OutputMessage) for part in item.content]
    logprobs = _logprobs(tuple(each for part in parts for each in part.logprobs))
    reply = _reply("".join(part.text for part in parts), response)
    return ChatCompletion(
        id=_id(response),
        created=response.created_at,
        model=response.model,
        choices=(CompletionChoice(reply, _finish_reason(response), logprobs=logprobs),),
        service_tier=_tier(response),
        usage=chat_usage(response.usage),
        responsed=whole_extensions(response),
    )


def _reply(text: str, response: Response) -> ChatReply:
    """Return the message of a completion; its content is null if it only makes calls."""
    calls = tuple(_call_of(item) for item in response.output if isinstance(item, FunctionCall | CustomToolCall))
    reasoning = "".join(map(_reasoning_text, response.output))
    return ChatReply(
        text if text or not calls else None,
        reasoning_content=reasoning or UNSET,
        reasoning=reasoning or UNSET,
        tool_calls=calls or UNSET,
    )


def _reasoning_text(item: Item) -> str:
    return "".join(part.text for part in item.content) if isinstance(item, ReasoningItem) else ""


def _call_of(item: FunctionCall | CustomToolCall) -> CallDelta:
    if isinstance(item, CustomToolCall):
        return CallDelta(id=item.call_id, type="custom", custom=CustomToolDelta(item.name, item.input))
    return CallDelta(id=item.call_id, type="function", function=FunctionDelta(item.name, item.arguments))


def _id(response: Response) -> str:
    return f"chatcmpl-{response.id.removeprefix('resp_')}"


def _tier(response: Response) -> Literal["flex"] | UnsetType:
    return "flex" if response.service_tier == "flex" else UNSET


def _finish_reason(response: Response) -> ChatFinishReason:
    details = response.incomplete_details
    if details is not None and details.reason == "max_output_tokens":
        return "length"
    called = any(isinstance(item, FunctionCall | CustomToolCall) for item in response.output)
    return "tool_calls" if called else "stop"


def _logprobs(logprobs: tuple[Logprob, ...]) -> ChatLogprobs | None:
    return ChatLogprobs(logprobs) if logprobs else None


def chat_usage(usage: Usage) -> ChatUsage:
    return ChatUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        PromptTokensDetails(usage.input_tokens_details.cached_tokens),
        CompletionTokensDetails(
            usage.output_tokens_details.reasoning_tokens, usage.output_tokens_details.forced_tokens
        ),
    )
