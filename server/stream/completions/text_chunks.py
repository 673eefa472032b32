"""Text completions: events of one answer -> frames, or the whole answer (OpenAI's legacy API)."""

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from server.protocol import sse
from server.protocol.events import Error, Event, OutputTextDelta, ResponseCompleted, ResponseIncomplete
from server.protocol.output_items import Logprob, OutputMessage
from server.protocol.response import Response
from server.stream.completions.chat_chunks import chat_usage, cut_reason
from server.stream.completions.chat_objects import ChatUsage, Failed
from server.stream.completions.chunk_times import AnswerExtensions, ChunkNumbers, whole_extensions

TextFinishReason: TypeAlias = Literal["stop", "length", "content_filter"]


class TextLogprobs(Struct, frozen=True):
    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...]
    text_offset: tuple[int, ...]
    """Characters of the text before each token."""


class TextChoice(Struct, frozen=True):
    text: str
    finish_reason: TextFinishReason | None = None
    index: int = 0
    logprobs: TextLogprobs | None = None


class TextCompletion(Struct, frozen=True, kw_only=True):
    """Answer, or one chunk of a streamed answer."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: ChatUsage | UnsetType | None = UNSET
    responsed: AnswerExtensions | UnsetType = UNSET
    """Facts about the answer, in the chunk with the reason for the end."""


class TextChunkEncoder:
    """Encode the events of one answer as frames of text completions."""

    def __init__(self, first: Response, include_usage: bool) -> None:
        self._template = _without_choices(first, None if include_usage else UNSET)
        self._characters = 0
        self._numbers = ChunkNumbers()

    def encode(self, events: Iterable[Event]) -> bytes:
        """Return the frames of the events, without the final `sse.DONE`."""
        return self._numbers.join(events, self._frames)

    def _frames(self, event: Event) -> Iterator[bytes]:
        match event:
            case OutputTextDelta(delta=text, logprobs=logprobs):
                yield self._chunk(TextChoice(text, logprobs=_logprobs(logprobs, self._characters)))
                self._characters += len(text)
            case ResponseCompleted(_, response) | ResponseIncomplete(_, response):
                yield self._chunk(TextChoice("", _finish_reason(response)), self._numbers.extensions(response))
                if self._template.usage is None and response.usage is not None:
                    yield sse.frame(replace(self._template, usage=chat_usage(response.usage)))
            case Error(error=payload):
                yield sse.frame(Failed(payload))

    def _chunk(self, choice: TextChoice, responsed: AnswerExtensions | UnsetType = UNSET) -> bytes:
        return sse.frame(replace(self._template, choices=(choice,), responsed=responsed))


def text_completion(response: Response) -> TextCompletion:
    """Return the whole answer of a response that is completed or incomplete."""
    assert response.usage is not None, "an ended response has its usage"
    parts = [part for item in response.output if isinstance(item, OutputMessage) for part in item.content]
    text = "".join(part.text for part in parts)
    logprobs = _logprobs(tuple(each for part in parts for each in part.logprobs), 0)
    choice = TextChoice(text, _finish_reason(response), logprobs=logprobs)
    answer = _without_choices(response, chat_usage(response.usage))
    return replace(answer, choices=(choice,), responsed=whole_extensions(response))


def _without_choices(response: Response, usage: ChatUsage | UnsetType | None) -> TextCompletion:
    id_ = f"cmpl-{response.id.removeprefix('resp_')}"
    return TextCompletion(id=id_, created=response.created_at, model=response.model, choices=(), usage=usage)


def _finish_reason(response: Response) -> TextFinishReason:
    return cut_reason(response) or "stop"


def _logprobs(logprobs: tuple[Logprob, ...], offset: int) -> TextLogprobs | None:
    if not logprobs:
        return None
    offsets = []
    for each in logprobs:
        offsets.append(offset)
        offset += len(each.token)
    return TextLogprobs(
        tuple(each.token for each in logprobs),
        tuple(each.logprob for each in logprobs),
        tuple({top.token: top.logprob for top in each.top_logprobs} for each in logprobs),
        tuple(offsets),
    )
