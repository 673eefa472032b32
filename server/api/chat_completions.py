"""`POST /v1/chat/completions`: a response that is told in another dialect, and not stored."""

import msgspec
from msgspec.structs import replace

from server.api.responses import ResponsesHandler, with_skipped
from server.api.streaming import stream_events
from server.generation import Generations
from server.http import Bodies, Exchange
from server.prompt import builder, chat
from server.protocol import chat_request
from server.served_model import ServedModel
from server.stream import ChatChunkEncoder, completion


class ChatCompletionsHandler:
    def __init__(
        self, models: ServedModel, bodies: Bodies, generations: Generations, responses: ResponsesHandler
    ) -> None:
        self._bodies = bodies
        self._models = models
        self._generations = generations
        self._responses = responses

    async def create(self, exchange: Exchange) -> None:
        self._generations.check()
        body = await self._bodies.read(exchange)
        asked = chat_request.decode(body)
        self._models.resolve(asked.model)
        request = replace(chat.request(asked), store=False)
        toolbox = builder.toolbox(request, nested=True)
        conversation = chat.conversation(asked, toolbox)
        fields = sorted(chat_request.unknown_fields(body))
        self._responses.check_strict(fields)
        exchange.skipped = (*fields, *conversation.skipped, *toolbox.skipped)
        field, said = "response_format.json_schema.schema", conversation.messages
        hold = await self._models.constraints(request.format, field, toolbox, said)
        tokens = await self._responses.tokens(request, conversation.messages, toolbox)
        order = await self._responses.order(
            request, tokens, exchange.client, name="messages", toolbox=toolbox, hold=hold
        )
        order = replace(order, first=with_skipped(order.first, tuple(dict.fromkeys(exchange.skipped))))
        with self._generations.make(order) as generation:
            if asked.stream:
                options = asked.stream_options
                chunks = ChatChunkEncoder(
                    order.first, include_usage=options is not None and bool(options.include_usage)
                )
                await stream_events(exchange, generation, start=self._generations.start, encode=chunks.encode)
            else:
                response = await self._responses.whole(exchange, generation)
                await exchange.answer(200, msgspec.json.encode(completion(response)))
