"""Recorder of one response: writes its beginning and its end to the store."""

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from server.protocol.response import Response
from server.store import AsyncStore, Conversations, Missing, Store, Stored, StoredItem, StoreError, split
from server.stream import StreamInput

log = logging.getLogger("responsed.generation")


class Recorder:
    """Writer of one response. It logs a failed write; the client then loses the stored copy only."""

    def __init__(self, store: AsyncStore | None, first: Response, items: Callable[[], bytes]) -> None:
        """Record the response `first`. `items` returns its stored input; the thread of the store calls it."""
        self._store = store
        self._first = first
        self._items = items
        self.unwritten = store is not None and first.store
        """True if the store has no part yet of a response that it is to have."""

    async def begin(self) -> bool:
        """Write the unfinished response; return True if it is stored."""
        self.unwritten = False
        if self._store is None or not self._first.store:
            return False
        return await self._is_written(self._store.run(self._write_beginning, self._store.responses))

    def _write_beginning(self, store: Store) -> None:
        first = self._first
        encoded = msgspec.json.encode(first)
        stored = Stored(
            id=first.id,
            created_at=first.created_at,
            status=first.status,
            first=encoded,
            response=encoded,
            items=self._items(),
            previous=first.previous_response_id,
            conversation=first.conversation.id if first.conversation else None,
        )
        store.begin(stored, time.monotonic())

    async def advance(self, inputs: Sequence[StreamInput]) -> None:
        """Write the inputs so far, since calls have effects that a crash must not hide."""
        if self._store is not None and self._first.store:
            writing = self._store.run(self._store.responses.advance, self._first.id, msgspec.json.encode(inputs))
            await self._is_written(writing)

    async def finish(self, response: Response, inputs: Sequence[StreamInput]) -> bool:
        """Write the end of the response and append its items to its conversation; return False if that failed."""
        assert self._store is not None, "a server without a store accepts no response to store"
        if await self._is_written(self._write(self._store, response, inputs)):
            return True
        if response.store:
            await self._store.discard(response.id)
        return False

    async def _write(self, store: AsyncStore, response: Response, inputs: Sequence[StreamInput]) -> None:
        """Write to the store. Unstored responses extend conversations too (vllm-project/agentic-api#56)."""
        output_items = [StoredItem(item.id, msgspec.json.encode(item)) for item in response.output]
        if response.store:
            encoded = msgspec.json.encode(response)
            log_ = msgspec.json.encode(inputs)
            await store.run(
                store.responses.finish, response.id, response.status, encoded, log_, output_items, time.monotonic()
            )
        elif response.conversation and response.status != "failed":
            with contextlib.suppress(Missing):  # the client deleted it meanwhile
                await store.run(self._extend, store.conversations, response.conversation.id, output_items)

    def _extend(self, store: Conversations, id_: str, output_items: Sequence[StoredItem]) -> None:
        store.add(id_, [*split(self._items()), *output_items], time.monotonic())

    async def _is_written(self, writing: Awaitable[None]) -> bool:
        try:
            await writing
        except StoreError as error:
            log.warning("%s is not stored: %s", self._first.id, error)
            return False
        except Missing:
            log.warning(
                "%s is not stored: it was deleted, or another server has taken this one for dead", self._first.id
            )
            return False
        except Exception:  # our internal errors must not cost the client its response
            log.exception("%s is not stored", self._first.id)
            return False
        return True
