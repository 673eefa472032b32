"""All responses that are being made."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from engine.runtime import Engine
from server.generation.activity import ActivityCount
from server.generation.admission import AdmissionControl
from server.generation.generation import STOPPING, Generation, GenerationSpec, Phase, Timeouts
from server.protocol.errors import ApiError, Unavailable
from server.store import AsyncStore

UNWRITTEN = 16
"""Background responses that are held here, since their end could not be written."""


class Generations:
    def __init__(
        self,
        engine: Engine,
        store: AsyncStore | None,
        patience: Timeouts,
        gate: AdmissionControl,
        busy: ActivityCount,
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._store = store
        self._patience = patience
        self._busy = busy
        self._inside: set[Generation] = set()
        """Those that have a place: a slot, or one in the queue."""
        self._running: dict[str, Generation] = {}
        self._unwritten: dict[str, Generation] = {}
        """The last of those, the oldest first: nobody has read them yet, perhaps."""
        self._stopping = False
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

    def found(self, response_id: str) -> Generation | None:
        """The one of that response, if it is here and not, or not only, in the store."""
        return self.stored(response_id) or self._unwritten.get(response_id)

    def forget(self, response_id: str) -> bool:
        """Whether it was held here because it could not be written."""
        return self._unwritten.pop(response_id, None) is not None

    def check(self) -> None:
        """Raises Unavailable where no other can be made now."""
        if self._stopping or not self._engine.running:
            raise Unavailable(STOPPING)
        if self._gate.full(len(self._inside)) and self._forsaken() is None:
            elapsed = [each.slot_seconds for each in self._inside]
            raise self._gate.refusal(len(self._inside), elapsed)

    @contextmanager
    def make(self, order: GenerationSpec, *, skip_admission: bool = False) -> Iterator[Generation]:
        """It has its first events, and goes on with `start`: one that is not started in the block has no place
        any more. `skip_admission`: it goes on with what has had a place already.

        Raises Unavailable.
        """
        if not skip_admission:
            self.check()
        if self._gate.full(len(self._inside)) and (forsaken := self._forsaken()) is not None:
            forsaken.cancel()
            self._inside.discard(forsaken)
        generation = Generation(order, self._engine, self._store, self._patience)
        self._inside.add(generation)
        try:
            yield generation
        finally:
            if order.first.id not in self._running:
                self._inside.discard(generation)

    def start(self, generation: Generation) -> None:
        assert self._nursery is not None, "nobody is served before `host` runs"
        self._busy.begin()
        self._running[generation.response.id] = generation
        self._nursery.start_soon(self._run, generation)

    def fail(self, error: ApiError, waiting_only: bool = False) -> None:
        """End all of them, or those that have no slot yet."""
        for generation in self._running.values():
            if generation.phase is Phase.QUEUED or not waiting_only:
                generation.fail(error)

    def stop_admitting(self) -> None:
        """The server is about to stop: nothing is admitted any more, and what waits for a slot fails."""
        self._stopping = True
        self.fail(Unavailable(STOPPING), waiting_only=True)

    async def _run(self, generation: Generation) -> None:
        try:
            await generation.run()
        finally:
            del self._running[generation.response.id]
            self._inside.discard(generation)
            self._hold_unwritten(generation)
            if generation.slot_seconds_used is not None:
                self._gate.answered(generation.slot_seconds_used)
            self._busy.end()

    def _hold_unwritten(self, generation: Generation) -> None:
        """A background response is told to nobody who waits: what is not in the store must be somewhere else."""
        if generation.response.background and not generation.response.store:
            self._unwritten[generation.response.id] = generation
            if len(self._unwritten) > UNWRITTEN:
                del self._unwritten[next(iter(self._unwritten))]

    def _forsaken(self) -> Generation | None:
        """The first that waits for a slot without a reader: one whose client may still come back for it gives way
        to one whose client is here."""
        return next(
            (each for each in self._running.values() if each in self._inside and each.queued_without_reader), None
        )
