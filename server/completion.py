"""A response and its events in the words of Chat Completions. Pure."""

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from server import sse
from server.events import (
    Error,
    ErrorPayload,
    Event,
    Message,
    OutputTextDelta,
    ReasoningItem,
    ReasoningTextDelta,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseIncomplete,
    ResponseInProgress,
    Usage,
)

Finish: TypeAlias = Literal["stop", "length"]


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int


class CompletionTokensDetails(Struct, frozen=True):
    reasoning_tokens: int


class ChatUsage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Delta(Struct, frozen=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    """No field of OpenAI's: servers of open models have it, and clients read it."""


class ChunkChoice(Struct, frozen=True):
    delta: Delta
    finish_reason: Finish | None = None
    index: int = 0
    logprobs: None = None


class Chunk(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: ChatUsage | UnsetType | None = UNSET
    """For who asked: null, but for the last chunk, which has no choices."""


class Failed(Struct, frozen=True):
    """What openai-python raises as an APIError, and others take for the end."""

    error: ErrorPayload


class ChatReply(Struct, frozen=True):
    content: str
    refusal: None = None
    role: Literal["assistant"] = "assistant"
    reasoning_content: str | UnsetType = UNSET


class Choice(Struct, frozen=True):
    message: ChatReply
    finish_reason: Finish
    index: int = 0
    logprobs: None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: ChatUsage


class Chunks:
    """One answer's frames. Their order is `server.stream`'s; this only tells it in other words."""

    def __init__(self, first: Response, include_usage: bool) -> None:
        self._template = Chunk(
            id=_id(first),
            created=first.created_at,
            model=first.model,
            choices=(),
            usage=None if include_usage else UNSET,
        )
        self._begun = False

    def encode(self, events: Iterable[Event]) -> bytes:
        """The events' frames, one after the other; `sse.DONE` comes behind the last."""
        return b"".join(frame for event in events for frame in self._frames(event))

    def _frames(self, event: Event) -> Iterator[bytes]:
        match event:
            case ResponseCreated():
                yield self._chunk(Delta(role="assistant", content=""))
            case ResponseInProgress():
                if self._begun:
                    yield sse.PING
                self._begun = True
            case OutputTextDelta(delta=text):
                yield self._chunk(Delta(content=text))
            case ReasoningTextDelta(delta=text):
                yield self._chunk(Delta(reasoning_content=text))
            case ResponseCompleted(_, response) | ResponseIncomplete(_, response):
                yield self._chunk(Delta(), _finish(response))
                if self._template.usage is None and response.usage is not None:
                    yield sse.frame(replace(self._template, usage=_usage(response.usage)))
            case Error(error=payload):
                yield sse.frame(Failed(payload))

    def _chunk(self, delta: Delta, finish: Finish | None = None) -> bytes:
        return sse.frame(replace(self._template, choices=(ChunkChoice(delta, finish),)))


def completion(response: Response) -> ChatCompletion:
    """The whole answer, of a response that has ended well or early."""
    assert response.usage is not None, "it has ended"
    text = "".join(part.text for item in response.output if isinstance(item, Message) for part in item.content)
    thought = "".join(part.text for item in response.output if isinstance(item, ReasoningItem) for part in item.content)
    reply = ChatReply(text, reasoning_content=thought or UNSET)
    return ChatCompletion(
        id=_id(response),
        created=response.created_at,
        model=response.model,
        choices=(Choice(reply, _finish(response)),),
        usage=_usage(response.usage),
    )


def _id(response: Response) -> str:
    return f"chatcmpl-{response.id.removeprefix('resp_')}"


def _finish(response: Response) -> Finish:
    details = response.incomplete_details
    return "length" if details is not None and details.reason == "max_output_tokens" else "stop"


def _usage(usage: Usage) -> ChatUsage:
    return ChatUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        PromptTokensDetails(usage.input_tokens_details.cached_tokens),
        CompletionTokensDetails(usage.output_tokens_details.reasoning_tokens),
    )
