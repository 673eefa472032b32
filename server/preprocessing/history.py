"""Load the past of a request: a chain of stored responses, or the items of a conversation."""

import time
from collections.abc import Sequence

from msgspec import Raw

from server.generation import Generations
from server.prompt import Past
from server.prompt.items import stored_items
from server.protocol.errors import InvalidRequest, NotFound
from server.protocol.request import Request
from server.store import AsyncStore, Missing, Stored
from server.work_thread import WorkThread


class History:
    def __init__(self, store: AsyncStore | None, generations: Generations, work: WorkThread) -> None:
        self._store = store
        self._generations = generations
        self._work = work

    async def before(self, request: Request) -> Past:
        """Return the items before the input. Raises InvalidRequest, NotFound, StoreError."""
        if (conversation := request.conversation_id) is None:
            return Past() if request.previous_response_id is None else await self._chain(request.previous_response_id)
        if request.previous_response_id is not None:
            raise InvalidRequest(
                "`conversation` and `previous_response_id` exclude each other: send one of them.", param="conversation"
            )
        return Past(await self._conversation_items(conversation), conversation)

    async def _conversation_items(self, conversation_id: str) -> list[Raw]:
        if self._store is None:
            message = "This server stores no conversations: send all items as `input`, or start it with --store PATH."
            raise InvalidRequest(message, param="conversation")
        try:
            page = await self._store.run(self._store.conversations.items, conversation_id, time.monotonic())
        except Missing as error:
            raise conversation_not_found(conversation_id, "conversation") from error
        return [Raw(item.json) for item in page.items]

    async def _chain(self, previous: str) -> Past:
        """Return the items of all responses up to `previous`, and the id of the first one."""
        if self._store is None:
            raise InvalidRequest(
                "This server stores no responses: send the whole conversation as `input`, or start it with "
                "--store PATH.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        if self._generations.find_stored(previous) is not None:
            raise _in_progress(previous)
        try:
            chain = await self._store.run(self._store.responses.chain, previous, time.monotonic())
        except Missing as error:
            raise _previous_not_found(error.id) from error
        if chain[-1].unfinished:
            if await self._store.run(self._store.responses.owner, previous) is not None:
                raise _in_progress(previous)
            raise _previous_not_found(previous)  # the store failed to record its end
        return Past(await chain_items(chain, self._work), chain[0].id)


async def chain_items(chain: Sequence[Stored], work: WorkThread) -> list[Raw]:
    """Return the items of stored responses, of each its input and then its output."""
    size = sum(len(stored.items) + len(stored.response) for stored in chain)
    return await work.run(size, _all_items, chain)


def _all_items(chain: Sequence[Stored]) -> list[Raw]:
    return [item for stored in chain for item in stored_items.conversation_items(stored.items, stored.response)]


def _in_progress(response_id: str) -> InvalidRequest:
    message = f"Response {response_id!r} is still in progress: wait until it has ended."
    return InvalidRequest(message, param="previous_response_id")


def _previous_not_found(response_id: str) -> InvalidRequest:
    message = f"Response {response_id!r} was not found: send the whole conversation as `input`."
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")


def conversation_not_found(conversation_id: str, param: str | None = None) -> NotFound:
    """Return the error of a conversation that is not in the store."""
    return NotFound(f"There is no conversation {conversation_id!r} here.", param=param)
