"""`/v1/conversations` and the paths below it: lists of items that responses continue and append to."""

import time
from collections.abc import Sequence
from os import urandom

import msgspec
from msgspec import UNSET, Raw, Struct

from server.config import LiveConfig
from server.http import Bodies, Exchange
from server.preprocessing import References, conversation_not_found
from server.prompt import InputReader
from server.prompt.items import stored_items
from server.protocol import decoding
from server.protocol.errors import InvalidRequest, NotFound
from server.protocol.request import Listing, TypeAndRole
from server.protocol.stored_objects import Addition, Change, Creation, Deleted
from server.relay import Forgetting
from server.store import AsyncStore, Conversation, Deletion, Missing, StoredItem, split
from server.work_thread import WorkThread, size_of


class ConversationObject(Struct, frozen=True):
    id: str
    created_at: int
    """Seconds."""
    metadata: Raw
    object: str = "conversation"


_creation = msgspec.json.Decoder(Creation)
_change = msgspec.json.Decoder(Change)
_addition = msgspec.json.Decoder(Addition)


class ConversationsHandler:
    def __init__(
        self,
        config: LiveConfig,
        bodies: Bodies,
        store: AsyncStore | None,
        forgetting: Forgetting,
        work: WorkThread,
    ) -> None:
        self._bodies = bodies
        self._store = store
        self._forgetting = forgetting
        self._work = work
        self._references = References(config, store, work)

    async def create(self, exchange: Exchange) -> None:
        body = await self._bodies.read(exchange) or b"{}"
        creation = await self._work.run(len(body), decoding.read, body, _creation)
        if self._store is None:
            raise InvalidRequest("This server stores no conversations: start it with --store PATH.")
        metadata = msgspec.json.encode(creation.metadata or {})
        conversation = Conversation(f"conv_{urandom(16).hex()}", int(time.time()), metadata)
        new = await self._new_items(creation.items or ())
        await self._store.run(self._store.conversations.create, conversation, new, time.monotonic())
        await exchange.answer(200, _encode(conversation))

    async def retrieve(self, exchange: Exchange, conversation_id: str) -> None:
        await exchange.answer(200, _encode(await self._conversation(conversation_id)))

    async def update(self, exchange: Exchange, conversation_id: str) -> None:
        body = await self._bodies.read(exchange)
        change = await self._work.run(len(body), decoding.read, body, _change)
        if change.metadata is UNSET:
            raise InvalidRequest("`metadata` is missing: send the new metadata.", param="metadata")
        metadata = msgspec.json.encode(change.metadata or {})
        store = self._required(conversation_id)
        if not await store.run(store.conversations.update, conversation_id, metadata, time.monotonic()):
            raise conversation_not_found(conversation_id)
        await self.retrieve(exchange, conversation_id)

    async def delete(self, exchange: Exchange, conversation_id: str) -> None:
        """Delete a conversation with its items. Responses stay; one in progress ends outside the conversation."""
        store = self._required(conversation_id)
        if not await store.run(store.conversations.delete, conversation_id):
            raise conversation_not_found(conversation_id)
        await self._forgetting.forget(Deletion(conversation_id, conversation_id))
        await exchange.answer(200, msgspec.json.encode(Deleted(conversation_id, "conversation.deleted")))

    async def add_items(self, exchange: Exchange, conversation_id: str) -> None:
        body = await self._bodies.read(exchange)
        addition = await self._work.run(len(body), decoding.read, body, _addition)
        if not addition.items:
            raise InvalidRequest("`items` is missing or empty: send the items to add.", param="items")
        store = self._required(conversation_id)
        new = await self._new_items(addition.items)
        try:
            await store.run(store.conversations.add, conversation_id, new, time.monotonic())
        except Missing as error:
            raise conversation_not_found(conversation_id) from error
        await self._answer_items(exchange, new, more=False)

    async def list_items(self, exchange: Exchange, conversation_id: str) -> None:
        listing = decoding.query(exchange.query, Listing)
        store = self._required(conversation_id)
        now, newest_first = time.monotonic(), listing.order == "desc"
        try:
            page = await store.run(
                store.conversations.items, conversation_id, now, listing.after, listing.limit, newest_first=newest_first
            )
        except Missing as error:
            if error.id == conversation_id:
                raise conversation_not_found(conversation_id) from error
            raise InvalidRequest(f"There is no item {listing.after!r} in this list.", param="after") from error
        await self._answer_items(exchange, page.items, page.more)

    async def retrieve_item(self, exchange: Exchange, conversation_id: str, item_id: str) -> None:
        store = self._required(conversation_id)
        item = await store.run(store.conversations.item, conversation_id, item_id)
        if item is None:
            raise await self._no_item(conversation_id, item_id)
        await exchange.answer(200, item.json)

    async def delete_item(self, exchange: Exchange, conversation_id: str, item_id: str) -> None:
        """Delete an item and answer with its conversation."""
        store = self._required(conversation_id)
        if not await store.run(store.conversations.delete_item, conversation_id, item_id, time.monotonic()):
            raise await self._no_item(conversation_id, item_id)
        await self._forgetting.forget(Deletion(conversation_id, conversation_id))
        await self.retrieve(exchange, conversation_id)

    async def _answer_items(self, exchange: Exchange, page: Sequence[StoredItem], more: bool) -> None:
        size = sum(len(item.json) for item in page)
        await exchange.answer(200, await self._work.run(size, _encode_items, page, more))

    def _required(self, conversation_id: str) -> AsyncStore:
        """Return the store. Raises NotFound if the server has none."""
        if self._store is None:
            raise conversation_not_found(conversation_id)
        return self._store

    async def _conversation(self, conversation_id: str) -> Conversation:
        """Return the conversation. Raises NotFound."""
        store = self._required(conversation_id)
        conversation = await store.run(store.conversations.get, conversation_id, time.monotonic())
        if conversation is None:
            raise conversation_not_found(conversation_id)
        return conversation

    async def _no_item(self, conversation_id: str, item_id: str) -> NotFound:
        """Return the error for a missing item. Raises NotFound if the conversation itself is missing."""
        await self._conversation(conversation_id)
        return NotFound(f"There is no item {item_id!r} in conversation {conversation_id!r}.")

    async def _new_items(self, items: Sequence[Raw]) -> list[StoredItem]:
        """Return items for the store. Raises InvalidRequest for an item that a response could not read later."""
        resolved = await self._references.resolve_items(items, "items")
        return await self._work.run(size_of(resolved), _stored_items, resolved)


def _stored_items(items: Sequence[Raw]) -> list[StoredItem]:
    """Return items for the store. Raises InvalidRequest for an item that a response could not read later."""
    for index, raw in enumerate(items):
        if decoding.part(raw, TypeAndRole, place := f"items[{index}]") == TypeAndRole():
            raise InvalidRequest(f"`{place}` has neither `type` nor `role`.", param=place)
    for _ in InputReader().entries(items, "items"):
        pass
    new = split(stored_items.encode_input_items(items, urandom(16).hex()))
    if len({item.id for item in new}) < len(new):
        raise InvalidRequest("Two of `items` have the same `id`: leave the ids out.", param="items")
    return new


def _encode_items(page: Sequence[StoredItem], more: bool) -> bytes:
    return msgspec.json.encode(
        stored_items.list_page([Raw(item.json) for item in page], [item.id for item in page], more)
    )


def _encode(conversation: Conversation) -> bytes:
    return msgspec.json.encode(ConversationObject(conversation.id, conversation.created_at, Raw(conversation.metadata)))
