"""Replace references in an input by the items that they name. The server reads and stores these items."""

import time
from collections.abc import Sequence

from msgspec import Raw
from msgspec.structs import replace

from server.config import LiveConfig
from server.prompt.items import references, stored_items
from server.protocol.errors import BodyTooLarge, InvalidRequest
from server.protocol.request import Request
from server.store import AsyncStore, Stored
from server.work_thread import WorkThread, size_of


class References:
    def __init__(self, config: LiveConfig, store: AsyncStore | None, work: WorkThread) -> None:
        self._store = store
        self._config = config
        self._work = work

    async def resolve(self, request: Request, past: Sequence[Raw]) -> Request:
        """Return the request without references. `past`: items before the input.

        Raises StoreError, and InvalidRequest for a reference without an item.
        """
        if not isinstance(request.input, list):
            return request
        return replace(request, input=await self.resolve_items(request.input, "input", past))

    async def resolve_items(self, items: Sequence[Raw], name: str, past: Sequence[Raw] = ()) -> list[Raw]:
        """Return the items of the field `name` without references. Raises as `resolve` does."""
        resolved = list(items)
        ids = await self._work.run(size_of(items), references, items, name)
        known = {}
        if ids:
            known = await self._work.run(size_of(past), stored_items.items_by_id, past)
        left = limit = self._config.now.max_body_bytes  # a small reference may name a large item
        for index, id_ in ids.items():
            place = f"{name}[{index}].id"
            if id_ not in known:
                known |= await self._response_items(id_, place)
            if id_ not in known:
                raise InvalidRequest(f"Item {id_!r} was not found: send the item itself.", param=place)
            resolved[index] = known[id_]
            left -= memoryview(known[id_]).nbytes
            if left < 0:
                message = f"The items that `{name}` references are larger than {limit} bytes."
                raise BodyTooLarge(message, param=place)
        return resolved

    async def _response_items(self, item_id: str, place: str) -> dict[str, Raw]:
        """Return all items of the response that the item belongs to; none if it is missing or in progress."""
        if self._store is None:
            message = "This server stores no responses: send the item itself, or start the server with --store PATH."
            raise InvalidRequest(message, param=place)
        response_id = stored_items.response_id_of(item_id)
        if response_id is None:
            return {}
        stored = await self._store.run(self._store.responses.get, response_id, time.monotonic())
        if stored is None or stored.unfinished:
            return {}
        return await self._work.run(len(stored.items) + len(stored.response), _items_by_id, stored)


def _items_by_id(stored: Stored) -> dict[str, Raw]:
    return stored_items.items_by_id(stored_items.conversation_items(stored.items, stored.response))
