"""`POST /v1/responses/compact`: the model is asked for a summary, by generations that nobody follows or stores."""

import time
from functools import partial

import msgspec

from server.api.responses import ResponsesHandler
from server.generation import Generations
from server.http import Exchange
from server.prompt import compaction
from server.protocol.errors import InvalidRequest
from server.protocol.events import Usage
from server.served_model import RENDERINGS, ServedModel


class CompactHandler:
    def __init__(self, models: ServedModel, generations: Generations, responses: ResponsesHandler) -> None:
        self._models = models
        self._generations = generations
        self._responses = responses

    async def create(self, exchange: Exchange) -> None:
        """What doesn't fit the context at once is summarised from its beginning, part by part."""
        self._generations.check()
        asked = await self._responses.asked(exchange)
        if asked.request.model is None:  # required here (openai-python 3.57, `response_compact_params.py`)
            raise InvalidRequest("`model` is missing: name the model that is to summarise.", param="model")
        messages = asked.messages
        n_ctx = self._models.served.info.n_ctx
        request = compaction.request(n_ctx)
        left = messages
        usages: list[Usage] = []
        while True:
            part = partial(compaction.part, n_ctx=n_ctx, most_bytes=self._models.most_bytes)
            count, tokens = await self._models.render(left, part, RENDERINGS)
            order = await self._responses.order(request, tokens, exchange.client)
            with self._generations.make(order, anyway=bool(usages)) as generation:
                response = await self._responses.whole(exchange, generation)
            text = compaction.written(response)
            assert response.usage is not None, "it has ended well"
            usages.append(response.usage)
            if count == len(left):
                break
            left = compaction.rest(left, count, text)
        answer = compaction.compacted(response.id, int(time.time()), messages, text, usages)
        await exchange.answer(200, msgspec.json.encode(answer))
