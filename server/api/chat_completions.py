"""`POST /v1/chat/completions`: generate a response, render it as a chat completion, and do not store it."""

import msgspec
from msgspec.structs import replace

from server.api.streaming import deliver
from server.config import LiveConfig
from server.generation import Generations
from server.http import Exchange
from server.preprocessing import BodyReader, EntryLimits, SpecBuilder, lane_of
from server.prompt import PreparedRequest, chat, options
from server.protocol import chat_request, prompt_cache
from server.protocol.chat_request import ChatRequest, includes_usage
from server.protocol.response import Response
from server.stream.completions import ChatChunkEncoder, completion
from server.work_thread import WorkThread


class ChatCompletionsHandler:
    def __init__(
        self, config: LiveConfig, bodies: BodyReader, specs: SpecBuilder, generations: Generations, work: WorkThread
    ) -> None:
        self._config = config
        self._bodies = bodies
        self._specs = specs
        self._generations = generations
        self._work = work

    async def create(self, exchange: Exchange) -> None:
        self._generations.check_admission(exchange.caller)
        body = await self._bodies.read(exchange, _decode)
        limits = EntryLimits.of(self._config.now)
        limits.check_items(body.request.messages, "messages")
        limits.check_tools(body.request.tools)
        with exchange.watch.while_connected():
            prepared = await self._work.run(body.size, _prepare, body.request, body.unknown)
            exchange.skipped = prepared.skipped
            self._generations.check_admission(exchange.caller, lane_of(prepared.request, exchange.caller))
            spec = await self._specs.specify(prepared, exchange)
        with self._generations.admit(spec) as generation:
            usage = includes_usage(body.request.stream_options)
            encode = ChatChunkEncoder(spec.first, include_usage=usage).encode if body.request.stream else None
            await deliver(exchange, self._generations, generation, encode=encode, render=_render)


def _decode(body: bytes) -> tuple[ChatRequest, list[str]]:
    """Return the request, and the names of its unknown fields."""
    return chat_request.decode(body), sorted(chat_request.unknown_fields(body))


def _prepare(chat_body: ChatRequest, unknown: list[str]) -> PreparedRequest:
    request = replace(chat.request(chat_body), store=False)
    toolbox = options.toolbox(request, nested=True)
    conversation = chat.messages_of(chat_body, toolbox)
    unused = prompt_cache.unused(chat_body.prompt_cache_options)
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
