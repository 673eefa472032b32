"""`server.work_thread`: long work leaves the loop free, runs one at a time, and ends when it is cancelled."""

import threading
from collections.abc import Callable

import pytest
import trio
from msgspec import Raw

from server.work_thread.work_thread import LARGE, Check, WorkThread, size_of
from tests.support.helpers import PATIENCE


@pytest.mark.parametrize(("size", "is_on_loop"), [(0, True), (LARGE, True), (LARGE + 1, False)])
async def test_work_runs_beside_the_loop_if_it_is_large(size: int, is_on_loop: bool) -> None:
    thread = await WorkThread().run(size, threading.current_thread)
    assert (thread is threading.current_thread()) == is_on_loop


@pytest.mark.parametrize(
    ("items", "is_large"),
    [([], False), ([b"x"], False), ([b"x"] * LARGE, True), ([b"x" * LARGE], True), ([b"x", b"y" * LARGE], True)],
    ids=["none", "a small one", "many", "a large one", "a large one behind a small one"],
)
def test_items_are_large_by_their_number_or_by_their_bytes(items: list[bytes], is_large: bool) -> None:
    assert (size_of(list(map(Raw, items))) > LARGE) == is_large


async def test_loop_goes_on_while_work_lasts() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return ended.wait(PATIENCE)  # only the loop ends it

    async with trio.open_nursery() as nursery:
        nursery.start_soon(WorkThread().run, LARGE + 1, work)
        while not begun.is_set():  # a thread sets it
            await trio.lowlevel.checkpoint()
        ended.set()


async def test_work_runs_one_at_a_time() -> None:
    lock, thread = threading.Lock(), WorkThread()
    done: list[int] = []

    def work(number: int) -> None:
        assert lock.acquire(blocking=False), "another work is running"
        done.append(number)
        lock.release()

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(thread.run, LARGE + 1, work, number)
    assert sorted(done) == list(range(20))


async def test_cancelled_work_ends_at_its_next_check() -> None:
    pieces: list[int] = []
    begun, cancelled = threading.Event(), threading.Event()

    def work(check: Check) -> None:
        for number in range(100):
            check()
            pieces.append(number)
            begun.set()
            assert cancelled.wait(PATIENCE)

    thread = WorkThread()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run_checked, LARGE + 1, work)
            while not begun.is_set():  # a thread sets it
                await trio.lowlevel.checkpoint()
            scope.cancel()
            cancelled.set()
    assert (scope.cancelled_caught, pieces) == (True, [0])
    assert await thread.run(LARGE + 1, len, "free again") == 10


async def test_error_of_work_reaches_its_task() -> None:
    def work() -> Callable[[], None]:
        raise ValueError("wrong")

    for size in (0, LARGE + 1):
        with pytest.raises(ValueError, match="wrong"):
            await WorkThread().run(size, work)


@pytest.mark.parametrize("is_busy", [False, True])
async def test_work_asks_at_each_check_whether_the_model_is_busy(is_busy: bool) -> None:
    asked: list[str] = []

    def is_model_busy() -> bool:
        asked.append(threading.current_thread().name)
        return is_busy

    def work(check: Check) -> int:
        for _ in range(3):
            check()
        return 3

    for size, checks in ((LARGE, 0), (LARGE + 1, 3)):
        assert await WorkThread(is_model_busy).run_checked(size, work) == 3
        assert len(asked) == checks
