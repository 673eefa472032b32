"""`POST /v1/completions`: continue a prompt without a chat template, for base models and benchmarks."""

import msgspec

from server.api.streaming import deliver
from server.generation import Generations
from server.http import Exchange
from server.preprocessing import BodyReader, SpecBuilder
from server.prompt import PreparedRequest, options
from server.protocol import decoding, fields
from server.protocol import request as schema
from server.protocol.chat_request import MEMBERS, ChatStreamOptions, includes_usage
from server.protocol.errors import InvalidRequest
from server.protocol.response import Response
from server.served_model import AnsweringModel
from server.stream.completions import TextChunkEncoder, text_completion

DEFAULT_TOKENS = 16
"""Tokens of an answer if the request has no `max_tokens`, as in OpenAI's API."""
REFUSED = {
    **{name: cure for name, cure in fields.REFUSED.items() if name != "best_of"},
    "suffix": "send the text before the gap only",
    "messages": "send them to /v1/chat/completions",
    "input": "send `prompt`",
    "max_output_tokens": "send `max_tokens`",
}


class CompletionRequest(schema.RequestBody, frozen=True):
    """Body of the request. Limits are those of OpenAI's API."""

    prompt: str | list[int] | None = None
    """Text, in which names of control tokens mean these tokens, or token ids."""
    stream_options: ChatStreamOptions | None = None
    max_tokens: schema.Limit | None = None
    logprobs: schema.Top | None = None
    echo: bool | None = None
    n: int | None = None
    best_of: int | None = None
    user: str | None = None


_request = msgspec.json.Decoder(CompletionRequest)
KNOWN = frozenset(CompletionRequest.__struct_fields__)


def decode(body: bytes) -> CompletionRequest:
    """Return the decoded body. Raises InvalidRequest, naming the field."""
    request = schema.with_limits(decoding.read(body, _request), "max_tokens")
    fields.refuse_fields(body, REFUSED)
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
        return_token_times=completion_request.return_token_times,
        user=completion_request.user,
        store=False,
        max_output_tokens=None if limit == -1 else limit,
        include=None if logprobs is None else [options.LOGPROBS],
        top_logprobs=logprobs,
    )


class TextCompletionsHandler:
    def __init__(self, model: AnsweringModel, bodies: BodyReader, specs: SpecBuilder, generations: Generations) -> None:
        self._model = model
        self._bodies = bodies
        self._specs = specs
        self._generations = generations

    async def create(self, exchange: Exchange) -> None:
        self._generations.check_admission(exchange.caller)
        body = await self._bodies.read(exchange, _decode)
        request = body.request
        exchange.skipped = tuple(body.unknown)
        prepared = PreparedRequest(
            request=to_request(request), field="prompt", plain_text=True, skipped=exchange.skipped
        )
        with exchange.watch.while_connected():
            prompt = await self._model.text_prompt(request.prompt or "")
            spec = await self._specs.build(prepared, prompt, exchange)
        with self._generations.admit(spec) as generation:
            usage = includes_usage(request.stream_options)
            encode = TextChunkEncoder(spec.first, include_usage=usage).encode if request.stream else None
            await deliver(exchange, self._generations, generation, encode=encode, render=_render)


def _decode(body: bytes) -> tuple[CompletionRequest, list[str]]:
    """Return the request, and the names of its unknown fields."""
    return decode(body), sorted(fields.unknown_fields(body, KNOWN, MEMBERS))


def _render(response: Response) -> bytes:
    return msgspec.json.encode(text_completion(response))
