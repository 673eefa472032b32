"""References in an input -> the items they stand for: these are what is read, and what is kept."""

import time
from collections.abc import Sequence

from msgspec import Raw
from msgspec.structs import replace

from server.prompt import item_reader, stored_items
from server.protocol.errors import BodyTooLarge, InvalidRequest
from server.protocol.request import Request
from server.store import AsyncStore


class References:
    def __init__(self, store: AsyncStore | None, most_bytes: int) -> None:
        """`most_bytes`: of all items that one request refers to. Small references could stand for large items."""
        self._store = store
        self._most_bytes = most_bytes

    async def resolve(self, request: Request, past: Sequence[Raw]) -> Request:
        """`past`: the items that come before the input. Raises InvalidRequest, naming the reference; StoreError."""
        if not isinstance(request.input, list):
            return request
        return replace(request, input=await self.resolve_items(request.input, "input", past))

    async def resolve_items(self, given: Sequence[Raw], name: str, past: Sequence[Raw] = ()) -> list[Raw]:
        """`given` in the field `name`, with what each reference in it stands for. Raises as `resolved` does."""
        found = list(given)
        references = item_reader.references(given, name)
        known = stored_items.items_by_id(past) if references else {}
        left = self._most_bytes
        for index, id_ in references.items():
            place = f"{name}[{index}].id"
            if id_ not in known:
                known |= await self._response_items(id_, place)
            if id_ not in known:
                raise InvalidRequest(f"There is no item {id_!r} to refer to.", param=place)
            found[index] = known[id_]
            left -= memoryview(known[id_]).nbytes
            if left < 0:
                raise BodyTooLarge(f"What `{name}` refers to is larger than {self._most_bytes} bytes.", param=place)
        return found

    async def _response_items(self, item_id: str, place: str) -> dict[str, Raw]:
        """All items of the response that the item belongs to; none while it is being made."""
        if self._store is None:
            message = "This server stores no responses (--store): send the item itself."
            raise InvalidRequest(message, param=place)
        owner = stored_items.response_id_of(item_id)
        stored = await self._store.run(self._store.responses.get, owner, time.monotonic()) if owner else None
        if stored is None or stored.unfinished:
            return {}
        return stored_items.items_by_id(stored_items.conversation_items(stored.items, stored.response))
