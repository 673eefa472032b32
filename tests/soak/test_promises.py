"""Short forms of the soaks: each fails if its promise is broken. That of `kill -9` is `tests/system/test_crash.py`."""

import gc
import itertools
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from engine.model import BatchEntry
from server.prompt_comparison import recent_prompts
from tests.soak import delays, idle, memory, mutated_bytes, slots, streams
from tests.soak.bounds import Bounds
from tests.support.helpers import Client, PacedModel, get, served

pytestmark = pytest.mark.slow

STEADY = "x"
"""Letter of the client that slow clients must not delay."""
IDLE = 100


async def test_each_stream_ends_with_one_terminal_event(tmp_path: Path) -> None:
    assert (await streams.run(Bounds(200), tmp_path)).startswith("200 streams")


@pytest.mark.parametrize("seed", [1, 2], ids=["drafts", "one row"])
async def test_hang_up_frees_its_slot_within_one_decode_step(seed: int, tmp_path: Path) -> None:
    assert (await slots.run(Bounds(60), tmp_path, seed)).startswith("60 hang-ups, 1 decode step at most")


async def test_mutated_bytes_take_nothing_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(
        state=tmp_path, max_output_tokens=mutated_bytes.MAX_TOKENS, queue=mutated_bytes.CLIENTS, metrics=True
    ) as running:
        statuses = await mutated_bytes.attack(running, Bounds(500))
    assert statuses["connections"] == 500
    assert {"101", "200", "400", "404"} <= statuses.keys()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


class StepRecorder(PacedModel):
    """Model that records for each decode its slots, with the number of their rows of logits."""

    def __init__(self) -> None:
        reply = lambda message: b"word " * 300 if message == b"Go." else message  # noqa: E731
        super().__init__(reply, n_ctx=1 << 12, n_slots=2, batched=True)
        self.steps: list[dict[int, int]] = []
        self.steady_slot = -1

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        super().decode(batch)
        self.steps.append({entry.slot: entry.logits for entry in batch})
        self.steady_slot = next((entry.slot for entry in batch if ord(STEADY) in entry.tokens), self.steady_slot)


async def test_slow_and_silent_clients_take_no_step_from_others() -> None:
    """A client that reads nothing gets its whole stream once it reads."""
    model = StepRecorder()
    async with (
        served(model) as running,
        delays.slow_clients(running, 5),
        await delays.narrow(running) as silent,
        await Client.to(running) as steady,
    ):
        model.hold()
        model.steps.clear()
        await silent.create(**delays.LONG)
        await steady.create(input=STEADY * 200, stream=True)
        while running.app.running + running.app.waiting < 2:  # noqa: ASYNC110  # it has no event
            await trio.sleep(0.001)
        model.go()
        answer = await steady.answer()
        await silent.created()
        whole = await silent.rest_of_stream()
    assert answer.text == STEADY * 200
    written = [number for number, rows in enumerate(model.steps) if rows.get(model.steady_slot)]
    assert written == list(range(written[0], written[-1] + 1))
    assert sum(len(model.steps[number]) == 2 for number in written) > 10, "the silent client had no slot"
    assert whole.endswith(b"data: [DONE]\n\n")


def own_objects() -> int:
    """Return the number of objects of our own classes, and of arrays of tokens, that the garbage collector knows."""
    gc.collect()
    names = [str(type(each).__module__) for each in gc.get_objects()]
    return sum(name.startswith(("engine.", "server.", "array")) for name in names)


async def test_requests_leave_no_object_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_prompts, "MAX_PROMPTS", 50)
    model = ScriptedModel()
    async with served(model, max_output_tokens=8) as running:
        counts = []
        for _ in range(5):
            await memory.load(running, Bounds(100).numbers())
            await running.app.wait_idle()
            await trio.testing.wait_all_tasks_blocked(0.02)
            model.decoded.clear()
            model.copies.clear()
            counts.append(own_objects())
    assert min(after - before for before, after in itertools.pairwise(counts)) < 20, counts


class StepCounter(trio.abc.Instrument):
    """Instrument that counts the turns of all tasks."""

    def __init__(self) -> None:
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1


async def steps_of_requests(running: Any) -> int:
    counter = StepCounter()
    trio.lowlevel.add_instrument(counter)
    async with await Client.to(running) as client:
        for _ in range(20):
            await client.request("GET", "/health")
            assert (await client.answer()).status == 200
    trio.lowlevel.remove_instrument(counter)
    return counter.steps


async def test_idle_connections_take_little_memory_and_no_turn_of_the_event_loop() -> None:
    async with served() as running:
        await get(running, "/health")
        alone = await steps_of_requests(running)
        tracemalloc.start()
        try:
            async with idle.idle(running, IDLE):
                await trio.sleep(0.05)
                gc.collect()
                taken, _ = tracemalloc.get_traced_memory()
                beside = await steps_of_requests(running)
        finally:
            tracemalloc.stop()
    assert taken < IDLE * idle.MEGABYTES * 1e6 / idle.CONNECTIONS
    assert beside - alone < IDLE / 2, "idle connections take turns"
