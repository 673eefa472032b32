"""Trio's access to the blocking store: one method at a time, in a thread.

A method that has begun runs to its end, even if its caller is cancelled. A method that still waits is cancelled.
"""

import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import trio

from server.store.errors import StoreError
from server.store.eviction import StoreUsage
from server.store.responses import Store

BEAT_SECONDS = 5.0
"""Seconds between two signs of life of a server that shares its store."""

log = logging.getLogger("responsed.store")

P = ParamSpec("P")
T = TypeVar("T")


class AsyncStore:
    """Store whose methods run in a thread: `await store.run(store.responses.get, response_id, now)`."""

    def __init__(self, store: Store) -> None:
        self.responses = store
        self.conversations = store.conversations
        self._limiter = trio.CapacityLimiter(1)
        self._discarded: set[str] = set()
        """Ids of responses that could not be deleted."""

    async def run(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of a method of the store, or raise its exception."""
        return await trio.to_thread.run_sync(functools.partial(method, *args, **kwargs), limiter=self._limiter)

    async def usage(self) -> StoreUsage | None:
        """Return the size of the store; None if it cannot be read."""
        try:
            return await self.run(self.responses.usage)
        except StoreError:
            return None

    async def discard(self, response_id: str) -> None:
        """Delete a response whose end was not written. If that fails too, `keep_alive` tries again."""
        try:
            await self.run(self.responses.delete, response_id)
        except StoreError:
            self._discarded.add(response_id)

    async def keep_alive(self, follow: Callable[[], Awaitable[None]]) -> None:
        """Let the other servers know that this one lives, until cancelled. Return at once if the store is not shared.

        `follow` reads what the others have changed. A failure is logged once, and tried again.
        """
        trouble = ""
        while self.responses.shared:
            try:
                await self.run(self.responses.keep_alive, time.monotonic())
                for each in tuple(self._discarded):
                    self._discarded.remove(each)
                    await self.discard(each)
                await follow()
                trouble = ""
            except Exception as error:
                if trouble != (trouble := repr(error)):
                    log.warning("%s", error, exc_info=not isinstance(error, StoreError))
            await trio.sleep(BEAT_SECONDS)
