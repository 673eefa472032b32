"""`/v1/responses/{id}` and the paths below it: stored responses, finished or in progress."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import msgspec
from msgspec import Raw, Struct

from server.access import reads_open_names
from server.api.streaming import stream_events
from server.generation import Generations
from server.http import Exchange
from server.preprocessing import chain_items
from server.prompt import affinity_group, affinity_key
from server.prompt.items import stored_items
from server.protocol import decoding, sse
from server.protocol.errors import ApiError, InvalidRequest, NotFound
from server.protocol.request import Listing, Retrieval
from server.protocol.sse import Encode
from server.protocol.stored_objects import Deleted
from server.relay import Forgetting, Relay, RunningElsewhere, replayed
from server.store import AsyncStore, Deletion, Missing, Stored
from server.work_thread import WorkThread, size_of

RESPONSE_ID = re.compile(r"resp_[0-9A-Za-z_-]+")
"""Id of a response, made by this or another server."""


class _Background(Struct):
    background: bool


class _Conversation(Struct):
    id: str


class _Extensions(Struct, frozen=True):
    continuation_id: str | None = None


class _Origin(Struct):
    conversation: _Conversation | None = None
    prompt_cache_key: str | None = None
    responsed: _Extensions = _Extensions()


class StoredResponsesHandler:
    def __init__(
        self,
        generations: Generations,
        store: AsyncStore | None,
        relay: Relay,
        forgetting: Forgetting,
        work: WorkThread,
        reasoning_events: str,
    ) -> None:
        self._generations = generations
        self._store = store
        self._forgetting = forgetting
        self._reasoning_events = reasoning_events
        self._relay = relay
        self._work = work

    async def retrieve(self, exchange: Exchange, response_id: str) -> None:
        retrieval = decoding.query(exchange.query, Retrieval)
        if (generation := self._generations.find(response_id)) is not None:
            if retrieval.stream:
                await stream_events(exchange, generation, retrieval.starting_after, encode=self._encoder(exchange))
            else:
                await exchange.answer(200, msgspec.json.encode(generation.response))
            return
        found = await self._found(response_id)
        if isinstance(found, Stored):
            if retrieval.stream:
                await self._replay(exchange, found, retrieval.starting_after)
            else:
                await exchange.answer(200, found.response)
        elif retrieval.stream:
            await self._relay.follow(exchange, found, retrieval.starting_after, self._encoder(exchange))
        else:
            await self._relay.answer(exchange, found, otherwise=found.stored.response)

    async def delete(self, exchange: Exchange, response_id: str) -> None:
        """Delete a response from the store, and its tokens from the prefix cache. Cancel it first if it runs."""
        if (generation := self._generations.find(response_id)) is not None:
            generation.cancel("deleted")
            await generation.ended.wait()
        elif (running := await self._running_elsewhere(response_id)) is not None:
            await self._relay.answer(exchange, running)
            return
        deletion = Deletion(response_id, await self._affinity_group(response_id))
        deleted = self._store is not None and await self._store.run(self._store.responses.delete, response_id, deletion)
        if not (self._generations.remove_unstored(response_id) or deleted):
            raise _not_found(response_id)
        await self._forgetting.forget(deletion)
        await exchange.answer(200, msgspec.json.encode(Deleted(response_id, "response")))

    async def _affinity_group(self, response_id: str) -> str | None:
        """Return the affinity group that `SpecBuilder` chose for a response; None if the store does not show it.

        The store has no client, so it does not show groups that clients name.
        """
        if self._store is None:
            return None
        try:
            chain = await self._store.run(self._store.responses.chain, response_id, time.monotonic())
        except Missing:
            return None
        first = chain[-1].first
        origin = await self._work.run(len(first), partial(msgspec.json.decode, type=_Origin), first)
        root = origin.conversation.id if origin.conversation else chain[0].id if len(chain) > 1 else None
        key = affinity_key(origin.prompt_cache_key, origin.responsed.continuation_id)
        return affinity_group(response_id, root, key, client=None)

    async def cancel(self, exchange: Exchange, response_id: str) -> None:
        """Cancel a background response and answer with it. An ended response stays as it is."""
        if (generation := self._generations.find(response_id)) is not None:
            _check_background(response_id, generation.response.background)
            generation.cancel("requested")
            await generation.ended.wait()
            return await exchange.answer(200, msgspec.json.encode(generation.response))
        found = await self._found(response_id)
        if isinstance(found, RunningElsewhere):
            return await self._relay.answer(exchange, found)
        created = await self._work.run(len(found.first), partial(msgspec.json.decode, type=_Background), found.first)
        _check_background(response_id, created.background)
        return await exchange.answer(200, found.response)

    async def input_items(self, exchange: Exchange, response_id: str) -> None:
        listing = decoding.query(exchange.query, Listing)
        found = await self._found(response_id)
        stored = found.stored if isinstance(found, RunningElsewhere) else found
        earlier = await self._earlier_items(stored)
        size = len(stored.items) + size_of(earlier)
        await exchange.answer(200, await self._work.run(size, _page, stored, listing, earlier))

    async def _earlier_items(self, stored: Stored) -> list[Raw]:
        """Return the items before the input, of earlier responses or of the conversation; none if some are deleted.

        OpenAI lists all items that were used to generate a response.
        """
        if (store := self._store) is None:
            return []
        with suppress(Missing):
            if stored.previous is not None:
                chain = await store.run(store.responses.chain, stored.previous, time.monotonic())
                return await chain_items(chain, self._work)
            if stored.conversation is not None:
                page = await store.run(store.conversations.items, stored.conversation, time.monotonic())
                items = [Raw(item.json) for item in page.items]
                size = len(stored.items) + size_of(items)
                return await self._work.run(size, stored_items.items_before, items, stored.items)
        return []

    async def _found(self, response_id: str) -> Stored | RunningElsewhere:
        """Return the stored response, or the server that generates it. Raises NotFound, StoreError."""
        running = self._generations.find_stored(response_id) is not None
        stored = await self._read(response_id)
        if stored is None or running or not stored.unfinished:
            found: Stored | RunningElsewhere | None = stored
        else:
            found = await self._relay.find(stored)
        if found is None:  # or the store failed to record its end
            raise _not_found(response_id)
        return found

    async def _running_elsewhere(self, response_id: str) -> RunningElsewhere | None:
        """Return the other server that generates a response; None if there is none."""
        if self._store is None or not self._store.responses.shared:
            return None
        stored = await self._read(response_id)
        found = await self._relay.find(stored) if stored is not None and stored.unfinished else None
        return found if isinstance(found, RunningElsewhere) else None

    async def _read(self, response_id: str) -> Stored | None:
        if self._store is None:
            return None
        return await self._store.run(self._store.responses.get, response_id, time.monotonic())

    def _encoder(self, exchange: Exchange) -> Encode:
        return sse.encoder(reads_open_names(self._reasoning_events, exchange.header))

    async def _replay(self, exchange: Exchange, stored: Stored, number: int) -> None:
        size = len(stored.first) + len(stored.inputs)
        frames = await self._work.run(size, replayed, stored, number, self._encoder(exchange))
        with exchange.watch.until_disconnect():
            await exchange.start_stream(lambda error: sse.DONE)
            await exchange.send(frames)
        await exchange.close(sse.DONE)


def _page(stored: Stored, listing: Listing, earlier: Sequence[Raw]) -> bytes:
    """Return the page of a response's items that is listed."""
    return msgspec.json.encode(stored_items.page(stored.items, listing, earlier))


def _check_background(response_id: str, background: bool) -> None:
    if not background:
        message = f"Response {response_id!r} cannot be cancelled: it was created without `background: true`."
        raise InvalidRequest(message)


def _not_found(response_id: str) -> ApiError:
    if not RESPONSE_ID.fullmatch(response_id):
        message = f"{response_id!r} is not the id of a response: ids begin with `resp_`."
        return InvalidRequest(message, param="response_id")
    return NotFound(f"There is no response {response_id!r} here.")
