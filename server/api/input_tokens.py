"""`POST /v1/responses/input_tokens`: what a response to the same request would evaluate, without making it."""

import msgspec
from msgspec import Struct

from server.api.responses import ResponsesHandler
from server.http import Exchange

COUNTED_BYTES = 1 << 20
"""Bytes of a prompt that are counted though they cannot fit into the context; more would stop everybody for seconds."""


class InputTokens(Struct, frozen=True):
    input_tokens: int
    object: str = "response.input_tokens"


class InputTokensHandler:
    def __init__(self, responses: ResponsesHandler) -> None:
        self._responses = responses

    async def count(self, exchange: Exchange) -> None:
        """More than the context holds is no error: to find that out is what it is asked for."""
        asked = await self._responses.asked(exchange)
        tokens = await self._responses.tokens(asked.request, asked.messages, asked.toolbox, COUNTED_BYTES)
        await exchange.answer(200, msgspec.json.encode(InputTokens(len(tokens))))
