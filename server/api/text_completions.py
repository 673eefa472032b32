"""`POST /v1/completions`: continue a prompt without a chat template, for base models and benchmarks."""

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from server.api.streaming import deliver
from server.generation import Generations
from server.http import Exchange
from server.preprocessing import BodyReader, SpecBuilder
from server.prompt import PreparedRequest, builder
from server.protocol import fields, sse
from server.protocol import request as schema
from server.protocol.chat_request import ChatStreamOptions, includes_usage
from server.protocol.errors import InvalidRequest
from server.protocol.events import Error, Event, OutputTextDelta, ResponseCompleted, ResponseIncomplete
from server.protocol.output_items import Logprob, OutputMessage
from server.protocol.response import Response
from server.served_model import ServedModel
from server.stream import ChatUsage, Failed, chat_usage

DEFAULT_TOKENS = 16
"""Tokens of an answer if the request has no `max_tokens`, as in OpenAI's API."""
REFUSED = {
    **{name: cure for name, cure in fields.REFUSED.items() if name != "best_of"},
    "suffix": "send the text before the gap only",
    "messages": "send them to /v1/chat/completions",
    "input": "send `prompt`",
    "max_output_tokens": "send `max_tokens`",
}

TextFinishReason: TypeAlias = Literal["stop", "length"]


class CompletionRequest(schema.SamplingFields, frozen=True):
    """Body of the request. Limits are those of OpenAI's API."""

    model: str | None = None
    prompt: str | list[int] | None = None
    """Text, in which names of control tokens mean these tokens, or token ids."""
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    max_tokens: schema.Limit | None = None
    logprobs: schema.Top | None = None
    echo: bool | None = None
    n: int | None = None
    best_of: int | None = None
    user: str | None = None


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


_request = msgspec.json.Decoder(CompletionRequest)
KNOWN = frozenset(CompletionRequest.__struct_fields__)


def decode(body: bytes) -> CompletionRequest:
    """Return the decoded body. Raises InvalidRequest, naming the field."""
    fields.refuse_fields(body, REFUSED)
    request = schema.with_limits(schema.read(body, _request), "max_tokens")
    if not request.prompt:
        raise InvalidRequest("`prompt` is missing: send a text or a list of token ids.", param="prompt")
    for name, only in (("n", 1), ("best_of", 1), ("echo", False)):
        if (value := getattr(request, name)) not in (None, only):
            shown = msgspec.json.encode(value).decode()
            raise InvalidRequest(f"`{name}` of {shown} is not supported: leave it out.", param=name)
    return request


def to_request(completion_request: CompletionRequest) -> schema.Request:
    """Return the request for a response that is not stored."""
    max_tokens, logprobs = completion_request.max_tokens, completion_request.logprobs
    limit = DEFAULT_TOKENS if max_tokens is None else max_tokens
    return schema.Request(
        **schema.sampling_fields(completion_request),
        model=completion_request.model,
        input=[],
        stream=completion_request.stream,
        user=completion_request.user,
        store=False,
        max_output_tokens=None if limit == -1 else limit,
        include=None if logprobs is None else [builder.LOGPROBS],
        top_logprobs=logprobs,
    )


class TextCompletionsHandler:
    def __init__(self, model: ServedModel, bodies: BodyReader, specs: SpecBuilder, generations: Generations) -> None:
        self._model = model
        self._bodies = bodies
        self._specs = specs
        self._generations = generations

    async def create(self, exchange: Exchange) -> None:
        self._generations.check(exchange.caller)
        body = await self._bodies.read(exchange, _decode)
        request = body.request
        exchange.skipped = tuple(body.unknown)
        prepared = PreparedRequest(
            request=to_request(request), field="prompt", plain_text=True, skipped=exchange.skipped
        )
        bound = self._specs.prompt_bound("prompt")
        with exchange.while_connected():
            tokens = await self._model.prompt_tokens(request.prompt or "", bound)
            bound(min(len(tokens), self._model.served.info.n_ctx))
            spec = await self._specs.build(prepared, tokens, exchange)
        with self._generations.make(spec) as generation:
            usage = includes_usage(request.stream_options)
            encode = TextChunkEncoder(spec.first, include_usage=usage).encode if request.stream else None
            await deliver(exchange, self._generations, generation, encode=encode, render=_render)


def _decode(body: bytes) -> tuple[CompletionRequest, list[str]]:
    """Return the request, and the names of its unknown fields."""
    return decode(body), sorted(fields.unknown_fields(body, KNOWN))


def _render(response: Response) -> bytes:
    return msgspec.json.encode(completion(response))


class TextChunkEncoder:
    """Encode the events of one answer as frames of text completions."""

    def __init__(self, first: Response, include_usage: bool) -> None:
        self._template = _without_choices(first, None if include_usage else UNSET)
        self._characters = 0

    def encode(self, events: Iterable[Event]) -> bytes:
        """Return the frames of the events, without the final `sse.DONE`."""
        return b"".join(frame for event in events for frame in self._frames(event))

    def _frames(self, event: Event) -> Iterator[bytes]:
        match event:
            case OutputTextDelta(delta=text, logprobs=logprobs):
                yield self._chunk(TextChoice(text, logprobs=_logprobs(logprobs, self._characters)))
                self._characters += len(text)
            case ResponseCompleted(_, response) | ResponseIncomplete(_, response):
                yield self._chunk(TextChoice("", _finish_reason(response)))
                if self._template.usage is None and response.usage is not None:
                    yield sse.frame(replace(self._template, usage=chat_usage(response.usage)))
            case Error(error=payload):
                yield sse.frame(Failed(payload))

    def _chunk(self, choice: TextChoice) -> bytes:
        return sse.frame(replace(self._template, choices=(choice,)))


def completion(response: Response) -> TextCompletion:
    """Return the whole answer of a response that is completed or incomplete."""
    assert response.usage is not None, "an ended response has its usage"
    parts = [part for item in response.output if isinstance(item, OutputMessage) for part in item.content]
    text = "".join(part.text for part in parts)
    logprobs = _logprobs(tuple(each for part in parts for each in part.logprobs), 0)
    choice = TextChoice(text, _finish_reason(response), logprobs=logprobs)
    return replace(_without_choices(response, chat_usage(response.usage)), choices=(choice,))


def _without_choices(response: Response, usage: ChatUsage | UnsetType | None) -> TextCompletion:
    id_ = f"cmpl-{response.id.removeprefix('resp_')}"
    return TextCompletion(id=id_, created=response.created_at, model=response.model, choices=(), usage=usage)


def _finish_reason(response: Response) -> TextFinishReason:
    details = response.incomplete_details
    return "length" if details is not None and details.reason == "max_output_tokens" else "stop"


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
