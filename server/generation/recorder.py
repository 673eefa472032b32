"""What the store receives of one response: that it has begun, and how it ended."""

import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence

import msgspec

from server.protocol.events import Response
from server.store import AsyncStore, Missing, Stored, StoredItem, StoreError, split
from server.stream import StreamInput

log = logging.getLogger("responsed.generation")


class Recorder:
    """A failed write is logged and costs the client nothing but the stored copy."""

    def __init__(self, store: AsyncStore | None, first: Response, items: bytes) -> None:
        """`first`: the response as it begins; `items`: its input, as it is stored."""
        self._store = store
        self._first = first
        self._items = items
        self.begun = False

    async def begin(self) -> bool:
        """Write that the response is being made. Return whether it is stored."""
        self.begun = True
        first = self._first
        if self._store is None or not first.store:
            return False
        encoded = msgspec.json.encode(first)
        stored = Stored(
            id=first.id,
            created_at=first.created_at,
            status=first.status,
            first=encoded,
            response=encoded,
            items=self._items,
            previous=first.previous_response_id,
            conversation=first.conversation.id if first.conversation else None,
        )
        return await self._is_written(self._store.run(self._store.responses.begin, stored, time.monotonic()))

    async def finish(self, response: Response, inputs: Sequence[StreamInput]) -> bool:
        """Write the end of a response, and add its items to its conversation. Return whether that worked."""
        assert self._store is not None, "a server without a store makes no response that is to be stored"
        if await self._is_written(self._write(self._store, response, inputs)):
            return True
        if response.store:
            with contextlib.suppress(StoreError):
                await self._store.run(self._store.responses.delete, response.id)
        return False

    async def _write(self, store: AsyncStore, response: Response, inputs: Sequence[StreamInput]) -> None:
        """A conversation grows whether or not the response itself is stored (vllm-project/agentic-api#56)."""
        made = [StoredItem(item.id, msgspec.json.encode(item)) for item in response.output]
        if response.store:
            encoded = msgspec.json.encode(response)
            log_ = msgspec.json.encode(inputs)
            await store.run(store.responses.finish, response.id, response.status, encoded, log_, made, time.monotonic())
        elif response.conversation and response.status != "failed":
            with contextlib.suppress(Missing):  # the client deleted it meanwhile
                added = [*split(self._items), *made]
                await store.run(store.conversations.add, response.conversation.id, added, time.monotonic())

    async def _is_written(self, writing: Awaitable[None]) -> bool:
        try:
            await writing
        except StoreError as error:
            log.warning("%s is not stored: %s", self._first.id, error)
            return False
        except Exception:  # a mistake of ours must not cost the client its answer
            log.exception("%s is not stored", self._first.id)
            return False
        return True
