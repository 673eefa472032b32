"""`/v1/responses/{id}` and what is below it: responses that are stored, some of them still being made."""

import re
import time

import msgspec
import trio
from msgspec import Raw, Struct

from engine.runtime import Engine
from server.api.streaming import stream_events
from server.generation import Generations
from server.http import Exchange
from server.prompt import stored_items
from server.protocol import request, sse
from server.protocol.errors import ApiError, InvalidRequest, NotFound
from server.protocol.request import Listing, Retrieval
from server.protocol.sse import Encode
from server.store import AsyncStore, Missing, Stored
from server.stream import replay

RESPONSE_ID = re.compile(r"resp_[0-9A-Za-z_-]+")
"""An id of a response, ours or somebody else's."""
LONG_BYTES = 1 << 16
"""Of cues. Longer streams are rebuilt outside the event loop: they take more than a few milliseconds."""


class Deleted(Struct, frozen=True):
    id: str
    object: str = "response"
    deleted: bool = True


class _Background(Struct):
    background: bool


class StoredResponsesHandler:
    def __init__(self, engine: Engine, generations: Generations, store: AsyncStore | None, encode: Encode) -> None:
        self._engine = engine
        self._generations = generations
        self._store = store
        self._encode = encode

    async def retrieve(self, exchange: Exchange, response_id: str) -> None:
        wish = request.query(exchange.query, Retrieval)
        if (generation := self._generations.found(response_id)) is not None:
            if wish.stream:
                await stream_events(exchange, generation, wish.starting_after, encode=self._encode)
            else:
                await exchange.answer(200, msgspec.json.encode(generation.response))
            return
        stored = await self._stored(response_id)
        if wish.stream:
            await self._tell_again(exchange, stored, wish.starting_after)
        else:
            await exchange.answer(200, stored.response)

    async def delete(self, exchange: Exchange, response_id: str) -> None:
        """Delete it from the store, and its tokens from the KV snapshots; cancel it first if it runs."""
        if (generation := self._generations.found(response_id)) is not None:
            generation.cancel()
            await generation.ended.wait()
        deleted = self._store is not None and await self._store.run(self._store.responses.delete, response_id)
        if not (self._generations.forget(response_id) or deleted):
            raise _not_found(response_id)
        await self._engine.drop_snapshots()
        await exchange.answer(200, msgspec.json.encode(Deleted(response_id)))

    async def cancel(self, exchange: Exchange, response_id: str) -> None:
        """The Response, cancelled; or as it is, if it has ended."""
        if (generation := self._generations.found(response_id)) is not None:
            _check_background(response_id, generation.response.background)
            generation.cancel()
            await generation.ended.wait()
            return await exchange.answer(200, msgspec.json.encode(generation.response))
        stored = await self._stored(response_id)
        _check_background(response_id, msgspec.json.decode(stored.first, type=_Background).background)
        return await exchange.answer(200, stored.response)

    async def input_items(self, exchange: Exchange, response_id: str) -> None:
        wish = request.query(exchange.query, Listing)
        stored = await self._stored(response_id)
        before = [] if self._store is None else await _previous_items(self._store, stored)
        await exchange.answer(200, msgspec.json.encode(stored_items.page(stored.items, wish, before)))

    async def _stored(self, response_id: str) -> Stored:
        """Raises NotFound, StoreError."""
        making = self._generations.stored(response_id) is not None
        stored = (
            None
            if self._store is None
            else await self._store.run(self._store.responses.get, response_id, time.monotonic())
        )
        # One without an end that nobody makes: its end could not be written, and whoever read it knows.
        if stored is None or (stored.unfinished and not making):
            raise _not_found(response_id)
        return stored

    async def _tell_again(self, exchange: Exchange, stored: Stored, number: int) -> None:
        if len(stored.cues) > LONG_BYTES:
            frames = await trio.to_thread.run_sync(_frames, stored, number, self._encode)
        else:
            frames = _frames(stored, number, self._encode)
        async with exchange.until_disconnect():
            await exchange.start_stream(lambda error: sse.DONE)
            await exchange.send(frames)
        await exchange.close(sse.DONE)


async def _previous_items(store: AsyncStore, stored: Stored) -> list[Raw]:
    """The items that the model was told before the input, of earlier responses or of the conversation: OpenAI lists
    all items that were used to generate a response. Where some are deleted by now, the input stands alone."""
    try:
        if stored.previous is not None:
            chain = await store.run(store.responses.chain, stored.previous, time.monotonic())
            return [item for each in chain for item in stored_items.conversation_items(each.items, each.response)]
        if stored.conversation is not None:
            page = await store.run(store.conversations.items, stored.conversation, time.monotonic())
            return stored_items.items_before([Raw(item.json) for item in page.items], stored.items)
    except Missing:
        pass
    return []


def _frames(stored: Stored, number: int, encode: Encode) -> bytes:
    """Those of the events behind `number`; at least the terminal one's."""
    return encode(replay.events_after(list(replay.events(stored.first, stored.cues)), number))


def _check_background(response_id: str, background: bool) -> None:
    if not background:
        raise InvalidRequest(f"Response {response_id!r} was not made with `background: true`, and cannot be cancelled.")


def _not_found(response_id: str) -> ApiError:
    if not RESPONSE_ID.fullmatch(response_id):
        return InvalidRequest(f"{response_id!r} is no id of a response: those begin with `resp_`.", param="response_id")
    return NotFound(f"There is no response {response_id!r} here.")
