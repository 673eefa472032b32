"""`POST /v1/chat/completions`: generate a response, render it as a chat completion, and do not store it."""

import msgspec
from msgspec.structs import replace

from server.api.streaming import deliver
from server.generation import Generations
from server.http import Bodies, Exchange, WorkThread
from server.preprocessing import SpecBuilder
from server.prompt import PreparedRequest, builder, chat
from server.protocol import chat_request, prompt_cache
from server.protocol.chat_request import ChatRequest, includes_usage
from server.protocol.events import Response
from server.protocol.fields import check_strict
from server.served_model import ServedModel
from server.stream import ChatChunkEncoder, completion


class ChatCompletionsHandler:
    def __init__(
        self,
        model: ServedModel,
        bodies: Bodies,
        specs: SpecBuilder,
        generations: Generations,
        work: WorkThread,
        strict_fields: bool,
    ) -> None:
        self._model = model
        self._bodies = bodies
        self._specs = specs
        self._generations = generations
        self._work = work
        self._strict_fields = strict_fields

    async def create(self, exchange: Exchange) -> None:
        self._generations.check()
        body = await self._bodies.read(exchange)
        chat_body, unknown = await self._work.run(len(body), _decode, body)
        self._model.resolve(chat_body.model)
        with exchange.while_connected():
            prepared = await self._work.run(len(body), _prepare, chat_body, unknown, self._strict_fields)
            exchange.skipped = prepared.skipped
            tokens = await self._specs.tokens(prepared)
            constraints = await self._specs.constraints(prepared)
            spec = await self._specs.build(prepared, tokens, exchange, constraints)
        with self._generations.make(spec) as generation:
            usage = includes_usage(chat_body.stream_options)
            encode = ChatChunkEncoder(spec.first, include_usage=usage).encode if chat_body.stream else None
            await deliver(exchange, self._generations, generation, encode=encode, render=_render)


def _decode(body: bytes) -> tuple[ChatRequest, list[str]]:
    """Return the request, and the names of its unknown fields."""
    return chat_request.decode(body), sorted(chat_request.unknown_fields(body))


def _prepare(chat_body: ChatRequest, unknown: list[str], strict: bool) -> PreparedRequest:
    request = replace(chat.request(chat_body), store=False)
    toolbox = builder.toolbox(request, nested=True)
    conversation = chat.conversation(chat_body, toolbox)
    check_strict(unknown, strict)
    unused = prompt_cache.unused(chat_body.prompt_cache_options, chat_body.prompt_cache_retention)
    return PreparedRequest(
        request=request,
        messages=conversation.messages,
        items=conversation.items,
        toolbox=toolbox,
        skipped=tuple(dict.fromkeys((*unknown, *unused, *conversation.skipped, *toolbox.skipped))),
        field="messages",
        schema_field="response_format.json_schema.schema",
    )


def _render(response: Response) -> bytes:
    return msgspec.json.encode(completion(response))
