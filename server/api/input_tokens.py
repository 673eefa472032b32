"""`POST /v1/responses/input_tokens`: count the prompt tokens of a request without answering it."""

import msgspec
from msgspec import Struct

from server.api.generation_specs import SpecBuilder
from server.api.request_reader import RequestReader
from server.http import Exchange

COUNTED_BYTES = 1 << 20
"""Bytes of a prompt that is counted though it cannot fit the context; a larger one would block all for seconds."""


class InputTokens(Struct, frozen=True):
    input_tokens: int
    object: str = "response.input_tokens"


class InputTokensHandler:
    def __init__(self, reader: RequestReader, specs: SpecBuilder) -> None:
        self._reader = reader
        self._specs = specs

    async def count(self, exchange: Exchange) -> None:
        """Answer with a count, even if it is larger than the context: clients ask to find that out."""
        prepared = await self._reader.read(exchange)
        tokens = await self._specs.tokens(prepared, COUNTED_BYTES)
        await exchange.answer(200, msgspec.json.encode(InputTokens(len(tokens))))
