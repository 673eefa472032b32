"""Conversion of a response and its events to Chat Completions. Pure."""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from server.protocol import sse
from server.protocol.events import (
    CustomToolCallInputDelta,
    Error,
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
from server.protocol.output_items import (
    CustomToolCall,
    FunctionCall,
    Item,
    Logprob,
    OutputMessage,
    OutputText,
    ReasoningItem,
)
from server.protocol.response import Response, Usage
from server.stream.completions.chat_objects import (
    CallDelta,
    ChatChunk,
    ChatCompletion,
    ChatFinishReason,
    ChatLogprobs,
    ChatReply,
    ChatUsage,
    ChunkChoice,
    CompletionChoice,
    CompletionTokensDetails,
    CustomToolDelta,
    CutReason,
    Delta,
    Failed,
    FunctionDelta,
    PromptTokensDetails,
)
from server.stream.completions.chunk_times import AnswerExtensions, ChunkNumbers, whole_extensions

CUT_REASONS: dict[str, CutReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""`incomplete_details.reason` -> reason of an answer."""


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
                yield self._chunk(Delta(role="assistant"))
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
        last = Delta(content="" if _content(response) == "" else None)
        yield self._chunk(last, _finish_reason(response), responsed=self._numbers.extensions(response))
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
    logprobs = _logprobs(tuple(each for part in _parts(response) for each in part.logprobs))
    return ChatCompletion(
        id=_id(response),
        created=response.created_at,
        model=response.model,
        choices=(CompletionChoice(_reply(response), _finish_reason(response), logprobs=logprobs),),
        service_tier=_tier(response),
        usage=chat_usage(response.usage),
        responsed=whole_extensions(response),
    )


def _reply(response: Response) -> ChatReply:
    reasoning = "".join(map(_reasoning_text, response.output))
    return ChatReply(
        _content(response),
        reasoning_content=reasoning or UNSET,
        reasoning=reasoning or UNSET,
        tool_calls=tuple(map(_call_of, _calls(response))) or UNSET,
    )


def _content(response: Response) -> str | None:
    """Return the content of the message; it is None if the message only makes calls."""
    return "".join(part.text for part in _parts(response)) or (None if _calls(response) else "")


def _parts(response: Response) -> list[OutputText]:
    return [part for item in response.output if isinstance(item, OutputMessage) for part in item.content]


def _calls(response: Response) -> list[FunctionCall | CustomToolCall]:
    return [item for item in response.output if isinstance(item, FunctionCall | CustomToolCall)]


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
    return cut_reason(response) or ("tool_calls" if _calls(response) else "stop")


def cut_reason(response: Response) -> CutReason | None:
    """Return the reason why an answer is not complete; None for one that is, or that a stop string ended."""
    details = response.incomplete_details
    return None if details is None else CUT_REASONS.get(details.reason)


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
