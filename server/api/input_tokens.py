"""`POST /v1/responses/input_tokens`: count the prompt tokens of a request without answering it."""

import msgspec
from msgspec import Struct

from server.http import Exchange
from server.preprocessing import RequestReader
from server.served_model import AnsweringModel


class InputTokens(Struct, frozen=True):
    input_tokens: int
    object: str = "response.input_tokens"


class InputTokensHandler:
    def __init__(self, reader: RequestReader, model: AnsweringModel) -> None:
        self._reader = reader
        self._model = model

    async def count(self, exchange: Exchange) -> None:
        """Answer with the count, even if it is larger than the context: clients call this to find that out."""
        body = await self._reader.read_body(exchange)
        with exchange.watch.while_connected():
            prepared = await self._reader.load_and_prepare(exchange, body, executes=False)
            prompt = await self._model.prompt(prepared, counts_only=True)
        await exchange.answer(200, msgspec.json.encode(InputTokens(len(prompt))))
