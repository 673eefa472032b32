"""Work on large requests, in a thread beside the event loop: the streams of other clients go on meanwhile.

A thread that computes in Python gives way within a switch interval (`server.cli.serve`). Long calls into C must release
the GIL, or be cut into pieces. The model may use all cores, and a step lasts as long as its slowest core, so the work
rests half of the time while the model has something to do.
"""

import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeAlias, TypeVar

import trio
from msgspec import Raw

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 1 << 14
"""Bytes or characters beyond which work runs in the thread. Smaller work takes less than 5 ms, and a thread 0.1 ms."""
ITEM_BYTES = 64
"""Bytes for which an item counts besides its own."""

MAX_REST_SECONDS = 0.05
"""Maximum seconds of one rest, however long the piece before it took."""

Check: TypeAlias = Callable[[], None]
"""Function that long work calls between its pieces. It raises trio.Cancelled if the result is no longer needed."""


class WorkThread:
    """One thread for all requests, so that they use one core at most."""

    def __init__(self, is_model_busy: Callable[[], bool] = lambda: False) -> None:
        """Any thread may call `is_model_busy`."""
        self._is_model_busy = is_model_busy
        self.limiter = trio.CapacityLimiter(1)

    async def run(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of `work`, which takes time for `size` bytes or characters."""
        if size <= LARGE:
            return work(*args, **kwargs)
        return await self.run_checked(size, lambda _: work(*args, **kwargs))

    async def run_checked(self, size: int, work: Callable[[Check], T]) -> T:
        """Return the result of `work`. A cancelled task ends work in the thread at the work's next check."""
        if size <= LARGE:
            return work(_no_check)
        return await trio.to_thread.run_sync(lambda: work(self._check()), limiter=self.limiter)

    def _check(self) -> Check:
        began = time.monotonic()

        def check() -> None:
            nonlocal began
            trio.from_thread.check_cancelled()
            if self._is_model_busy():
                time.sleep(min(time.monotonic() - began, MAX_REST_SECONDS))
            began = time.monotonic()

        return check


def size_of(items: Sequence[Raw]) -> int:
    """Return the size of items for `run`. Items beyond `LARGE` bytes count for little, so that it takes no time."""
    size = len(items) * ITEM_BYTES
    for item in items:
        if size > LARGE:
            break
        size += memoryview(item).nbytes
    return size


def _no_check() -> None:
    """Let the work go on: it is short."""
