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
    Logprob,
    OutputTextDelta,
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


class ChatLogprobs(Struct, frozen=True):
    content: tuple[Logprob, ...]
    refusal: None = None


class ChunkChoice(Struct, frozen=True):
    delta: Delta
    finish_reason: Finish | None = None
    index: int = 0
    logprobs: ChatLogprobs | None = None


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


class Choice(Struct, frozen=True):
    message: ChatReply
    finish_reason: Finish
    index: int = 0
    logprobs: ChatLogprobs | None = None


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
            case OutputTextDelta(delta=text, logprobs=logprobs):
                yield self._chunk(Delta(content=text), logprobs=logprobs)
            case ResponseCompleted(_, response) | ResponseIncomplete(_, response):
                yield self._chunk(Delta(), _finish(response))
                if self._template.usage is None and response.usage is not None:
                    yield sse.frame(replace(self._template, usage=_usage(response.usage)))
            case Error(error=payload):
                yield sse.frame(Failed(payload))

    def _chunk(self, delta: Delta, finish: Finish | None = None, logprobs: tuple[Logprob, ...] = ()) -> bytes:
        choice = ChunkChoice(delta, finish, logprobs=_logprobs(logprobs))
        return sse.frame(replace(self._template, choices=(choice,)))


def completion(response: Response) -> ChatCompletion:
    """The whole answer, of a response that has ended well or early."""
    assert response.usage is not None, "it has ended"
    parts = [part for item in response.output for part in item.content]
    reply = ChatReply("".join(part.text for part in parts))
    logprobs = _logprobs(tuple(each for part in parts for each in part.logprobs))
    return ChatCompletion(
        id=_id(response),
        created=response.created_at,
        model=response.model,
        choices=(Choice(reply, _finish(response), logprobs=logprobs),),
        usage=_usage(response.usage),
    )


def _id(response: Response) -> str:
    return f"chatcmpl-{response.id.removeprefix('resp_')}"


def _finish(response: Response) -> Finish:
    details = response.incomplete_details
    return "length" if details is not None and details.reason == "max_output_tokens" else "stop"


def _logprobs(logprobs: tuple[Logprob, ...]) -> ChatLogprobs | None:
    return ChatLogprobs(logprobs) if logprobs else None


def _usage(usage: Usage) -> ChatUsage:
    return ChatUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        PromptTokensDetails(usage.input_tokens_details.cached_tokens),
        CompletionTokensDetails(usage.output_tokens_details.reasoning_tokens),
    )
