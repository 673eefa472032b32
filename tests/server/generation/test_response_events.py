"""Tests of the log of a response's events."""

import trio
from trio.testing import wait_all_tasks_blocked

from server.generation.response_events import EventLog
from server.protocol.events import OutputTextDelta


class CountedTurns(trio.abc.Instrument):
    """Counts the turns of tasks by their names."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name] = self.of.get(task.name, 0) + 1


async def test_reader_wakes_for_events_only() -> None:
    log, turns = EventLog(), CountedTurns()
    event = OutputTextDelta(0, "item", 0, 0, "text")
    read = []

    async def reader() -> None:
        read.extend(await log.after(-1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader, name="reader")
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(turns)
        log.append([])
        await wait_all_tasks_blocked()
        log.append([event])
    trio.lowlevel.remove_instrument(turns)
    assert (read, turns.of["reader"]) == ([event], 1)
