"""The conversation before a request: a chain of stored responses, or the items of a conversation."""

import time

from server.api import conversations
from server.generation import Generations
from server.prompt import Past, stored_items
from server.protocol.errors import InvalidRequest
from server.protocol.request import Request
from server.store import AsyncStore, Missing


class History:
    def __init__(self, store: AsyncStore | None, generations: Generations) -> None:
        self._store = store
        self._generations = generations

    async def before(self, request: Request) -> Past:
        """Return the items before the input. Raises InvalidRequest, NotFound, StoreError."""
        if (conversation := request.conversation_id) is None:
            return Past() if request.previous_response_id is None else await self._chain(request.previous_response_id)
        if request.previous_response_id is not None:
            raise InvalidRequest(
                "Either `conversation` or `previous_response_id` says what came before, not both.", param="conversation"
            )
        return Past(await conversations.conversation_items(self._store, conversation), conversation)

    async def _chain(self, previous: str) -> Past:
        """Return the items of all responses up to that one, and the id of the first."""
        if self._store is None:
            raise InvalidRequest(
                "This server stores no responses (--store): send the whole conversation as `input`.",
                param="previous_response_id",
            )
        if self._generations.stored(previous) is not None:
            raise InvalidRequest(f"Response {previous!r} is still being made.", param="previous_response_id")
        try:
            chain = await self._store.run(self._store.responses.chain, previous, time.monotonic())
        except Missing as error:
            raise _previous_not_found(error.id) from error
        if chain[-1].unfinished:  # a crash left it so, and its end is written when it is next retrieved
            raise _previous_not_found(previous)
        items = [item for stored in chain for item in stored_items.conversation_items(stored.items, stored.response)]
        return Past(items, chain[0].id)


def _previous_not_found(response_id: str) -> InvalidRequest:
    message = f"There is no response {response_id!r} here (any more)."
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
