"""The store's methods for trio: one at a time, each in a thread.

Work that has begun is waited for, cancelled or not; what is cancelled while it waits for its turn does not happen.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, TypeVarTuple

import trio

from server.store.conversations import Conversation, Page, StoredItem
from server.store.responses import Store, Stored

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Turns:
    """One connection: one thread at a time."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def take(self, act: Callable[[*Ts], T], *values: *Ts) -> T:
        return await trio.to_thread.run_sync(act, *values, limiter=self._limiter)


class AsyncStore:
    """See Store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = _Turns()
        self.conversations = AsyncConversations(store, self._turns)

    async def begin(self, stored: Stored, now: float) -> None:
        await self._turns.take(self._store.begin, stored, now)

    async def finish(
        self, response_id: str, status: str, response: bytes, cues: bytes, made: Sequence[StoredItem], now: float
    ) -> None:
        await self._turns.take(self._store.finish, response_id, status, response, cues, made, now)

    async def get(self, response_id: str, now: float) -> Stored | None:
        return await self._turns.take(self._store.get, response_id, now)

    async def chain(self, response_id: str, now: float) -> list[Stored]:
        return await self._turns.take(self._store.chain, response_id, now)

    async def delete(self, response_id: str) -> bool:
        return await self._turns.take(self._store.delete, response_id)

    async def close(self) -> None:
        await self._turns.take(self._store.close)


class AsyncConversations:
    """See Conversations."""

    def __init__(self, store: Store, turns: _Turns) -> None:
        self._conversations = store.conversations
        self._turns = turns

    async def create(self, conversation: Conversation, items: Sequence[StoredItem], now: float) -> None:
        await self._turns.take(self._conversations.create, conversation, items, now)

    async def get(self, conversation_id: str, now: float) -> Conversation | None:
        return await self._turns.take(self._conversations.get, conversation_id, now)

    async def update(self, conversation_id: str, metadata: bytes, now: float) -> bool:
        return await self._turns.take(self._conversations.update, conversation_id, metadata, now)

    async def delete(self, conversation_id: str) -> bool:
        return await self._turns.take(self._conversations.delete, conversation_id)

    async def add(self, conversation_id: str, items: Sequence[StoredItem], now: float) -> None:
        await self._turns.take(self._conversations.add, conversation_id, items, now)

    async def items(
        self,
        conversation_id: str,
        now: float,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Page:
        return await self._turns.take(self._conversations.items, conversation_id, now, after, limit, newest_first)

    async def item(self, conversation_id: str, item_id: str) -> StoredItem | None:
        return await self._turns.take(self._conversations.item, conversation_id, item_id)

    async def delete_item(self, conversation_id: str, item_id: str, now: float) -> bool:
        return await self._turns.take(self._conversations.delete_item, conversation_id, item_id, now)
