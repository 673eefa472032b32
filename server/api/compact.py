"""`POST /v1/responses/compact`: let the model summarize a conversation, in generations that are not stored."""

import time

import msgspec

from server.api.streaming import run_to_end
from server.generation import Generations
from server.http import Exchange
from server.preprocessing import RequestReader, SpecBuilder
from server.prompt import PreparedRequest, compaction
from server.protocol.errors import InvalidRequest
from server.protocol.request import Request
from server.protocol.response import Usage
from server.served_model import AnsweringModel


class CompactHandler:
    def __init__(
        self, model: AnsweringModel, reader: RequestReader, specs: SpecBuilder, generations: Generations
    ) -> None:
        self._model = model
        self._reader = reader
        self._specs = specs
        self._generations = generations

    async def create(self, exchange: Exchange) -> None:
        """Answer with the compacted conversation. A conversation beyond the context is summarized part by part."""
        self._generations.check_admission(exchange.caller)
        body = await self._reader.read_body(exchange)
        with exchange.watch.while_connected():
            prepared = await self._reader.load_and_prepare(exchange, body, executes=False)
        if prepared.request.model is None:  # required here (openai-python 3.57, `response_compact_params.py`)
            raise InvalidRequest("`model` is missing: name the model that writes the summary.", param="model")
        _check_cache_options(prepared.request)
        request = compaction.compact_request(prepared.request, self._model.card.n_ctx)
        summary = PreparedRequest(request=request, skipped=prepared.skipped)
        left = prepared.messages
        usages: list[Usage] = []
        while True:
            with exchange.watch.while_connected():
                count, prompt = await self._model.summary_prompt(left)
                spec = await self._specs.build(summary, prompt, exchange)
            with self._generations.admit(spec, skip_admission=bool(usages)) as generation:
                response = await run_to_end(exchange, self._generations, generation)
            text = compaction.summary_text(response)
            assert response.usage is not None, "a completed response has its usage"
            usages.append(response.usage)
            if count == len(left):
                break
            left = compaction.remaining_messages(left, count, text)
        answer = compaction.compacted_response(response.id, int(time.time()), prepared.messages, text, usages)
        await exchange.answer(200, msgspec.json.encode(answer))


def _check_cache_options(request: Request) -> None:
    """Raise InvalidRequest for options that this endpoint does not have."""
    for name in ("prewarm", "comparison_response_id"):
        if getattr(request.prompt_cache_options, name, None) is not None:
            message = f"`prompt_cache_options.{name}` has no meaning here: send it to /v1/responses."
            raise InvalidRequest(message, param=f"prompt_cache_options.{name}")
