"""All responses that are being made."""

import trio

from engine import Engine
from server.archive import Archive
from server.busy import Busy
from server.errors import ApiError
from server.generation import Generation, Order, Patience


class Generations:
    def __init__(self, engine: Engine, archive: Archive | None, patience: Patience, busy: Busy) -> None:
        self._engine = engine
        self._archive = archive
        self._patience = patience
        self._busy = busy
        self._running: dict[str, Generation] = {}
        self._nursery: trio.Nursery | None = None

    async def host(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Their tasks live here, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def stored(self, response_id: str) -> Generation | None:
        """The one of that response, if it is being made, and stored."""
        generation = self._running.get(response_id)
        return generation if generation is not None and generation.response.store else None

    def make(self, order: Order) -> Generation:
        """It has its first events, and goes on with `start`."""
        return Generation(order, self._engine, self._archive, self._patience)

    def start(self, generation: Generation) -> None:
        assert self._nursery is not None, "nobody is served before `host` runs"
        self._busy.begin()
        self._running[generation.response.id] = generation
        self._nursery.start_soon(self._run, generation)

    def fail(self, error: ApiError) -> None:
        """All of them."""
        for generation in self._running.values():
            generation.fail(error)

    async def _run(self, generation: Generation) -> None:
        try:
            await generation.run()
        finally:
            del self._running[generation.response.id]
            self._busy.end()
