"""Places for requests at the upstreams: interactive jobs get one before batch jobs, each kind in order of arrival."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from engine.job import Lane


class Slots:
    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[Lane, deque[trio.Event]] = {Lane.INTERACTIVE: deque(), Lane.BATCH: deque()}

    @property
    def full(self) -> bool:
        return self._free == 0

    @asynccontextmanager
    async def slot(self, lane: Lane) -> AsyncIterator[None]:
        await self._acquire(lane)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, lane: Lane) -> None:
        if self._free:
            self._free -= 1
            return
        turn = trio.Event()
        self._waiting[lane].append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self._release()  # the slot came together with the end
            else:
                self._waiting[lane].remove(turn)
            raise

    def _release(self) -> None:
        for waiting in self._waiting.values():
            if waiting:
                waiting.popleft().set()
                return
        self._free += 1
