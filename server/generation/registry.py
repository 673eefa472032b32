"""Registry of all running generations, by the ids of their responses."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from engine.job import Lane
from server.access import Caller
from server.generation.activity import ActivityCount
from server.generation.admission import AdmissionControl, Pace, measured_pace
from server.generation.failures import stopping
from server.generation.generation import Generation
from server.generation.generator import Generator
from server.generation.spec import GenerationSpec, Timeouts
from server.generation.summary import GenerationSummary
from server.protocol.errors import ApiError, ServerBusy
from server.store import AsyncStore

log = logging.getLogger("responsed.generation")

MAX_UNSTORED = 16
"""Maximum number of ended background responses that stay in memory because the store failed to write them."""


class Generations:
    def __init__(
        self,
        engine: Generator,
        store: AsyncStore | None,
        timeouts: Timeouts,
        admission: AdmissionControl,
        activity: ActivityCount,
        on_end: Callable[[GenerationSummary], None],
    ) -> None:
        """`on_end` is called with each generation that has ended."""
        self._engine = engine
        self._admission = admission
        self._store = store
        self.timeouts = timeouts
        """Timeouts of the next generations."""
        self._activity = activity
        self._on_end = on_end
        self._active: dict[Generation, None] = {}
        """Generations that have a slot or a place in the queue, in order of arrival."""
        self._by_id: dict[str, Generation] = {}
        self._unstored: dict[str, Generation] = {}
        """Ended background responses that are not in the store, by id, the oldest first."""
        self._ended_tokens = 0
        """Tokens of generations that have ended."""
        self._stopping = False
        self._nursery: trio.Nursery | None = None

    @property
    def stopping(self) -> bool:
        """True if no more generations are admitted."""
        return self._stopping

    @property
    def idle(self) -> bool:
        """True if there is no generation. Any thread may ask."""
        return not self._by_id

    @property
    def running(self) -> int:
        """Number of generations that have a slot."""
        return sum(not each.queued for each in self._by_id.values())

    @property
    def waiting(self) -> int:
        """Number of generations that wait for a slot."""
        return len(self._active) - self.running

    @property
    def running_by_lane(self) -> dict[str, int]:
        started = [each.lane for each in self._by_id.values() if not each.queued]
        return {lane.value: started.count(lane) for lane in Lane}

    @property
    def waiting_by_lane(self) -> dict[str, int]:
        admitted = [each.lane for each in self._active]
        return {lane: admitted.count(Lane(lane)) - running for lane, running in self.running_by_lane.items()}

    @property
    def queue_limit(self) -> int:
        """Number of generations of each lane that may wait for a slot."""
        return self._admission.queue

    @property
    def generated_tokens(self) -> int:
        """Number of tokens generated since the start."""
        return self._ended_tokens + sum(each.generated_tokens for each in self._by_id.values())

    @property
    def in_progress(self) -> list[Generation]:
        """Generations that have begun and not ended, in order of arrival."""
        return list(self._by_id.values())

    async def host(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of the generations until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def find_stored(self, response_id: str) -> Generation | None:
        """Return the running generation of a response if the response is to be stored."""
        generation = self._by_id.get(response_id)
        return generation if generation is not None and generation.response.store else None

    def find(self, response_id: str) -> Generation | None:
        """Return the generation of a response if it is running or unstored."""
        return self.find_stored(response_id) or self._unstored.get(response_id)

    def remove_unstored(self, response_id: str) -> bool:
        """Remove an unstored response; return False if there is none with this id."""
        return self._unstored.pop(response_id, None) is not None

    def check_admission(self, caller: Caller, lane: Lane | None = None) -> None:
        """Raise Unavailable if no further generation of the caller is admitted to a lane; None: to any lane."""
        if self._stopping or not self._engine.running:
            raise stopping()
        if self._admission.has_slot(len(self._active)):
            return
        refusals = [self._refusal(caller, each) for each in (Lane if lane is None else (lane,))]
        if refusals[0] is not None and None not in refusals:
            raise refusals[0]

    @contextmanager
    def admit(self, spec: GenerationSpec, *, skip_admission: bool = False) -> Iterator[Generation]:
        """Admit a generation and yield it with its first events. It loses its place unless the block calls `start`.

        `skip_admission` admits a further step of a request that was admitted before. Raises Unavailable.
        """
        if not skip_admission:
            self.check_admission(spec.caller, spec.job.lane)
        self._make_room(spec.caller, spec.job.lane)
        generation = Generation(spec, self._engine, self._store, self.timeouts)
        self._active[generation] = None
        try:
            yield generation
        finally:
            if spec.first.id not in self._by_id:
                self._active.pop(generation, None)

    def start(self, generation: Generation) -> None:
        assert self._nursery is not None, "`host` runs before the first request"
        self._activity.begin()
        self._by_id[generation.response.id] = generation
        self._nursery.start_soon(self._run, generation)

    def fail(self, error: ApiError, waiting_only: bool = False) -> None:
        """End all generations with an error, or only those without a slot."""
        for generation in self._by_id.values():
            if generation.queued or not waiting_only:
                generation.fail(error)

    def stop_admitting(self) -> None:
        """Admit no more generations, and fail those that wait for a slot."""
        self._stopping = True
        self.fail(stopping(), waiting_only=True)

    async def _run(self, generation: Generation) -> None:
        try:
            await generation.run()
        finally:
            del self._by_id[generation.response.id]
            self._ended_tokens += generation.generated_tokens
            self._active.pop(generation, None)
            self._keep_unstored(generation)
            if generation.response.status == "completed":  # a limit or a hang-up hides the length
                self._admission.record_output(generation.generated_tokens)
            self._report(generation)
            self._activity.end()

    def _report(self, generation: Generation) -> None:
        """Log and count a generation that has ended. A failure here must not end the others."""
        try:
            self._on_end(generation.summary())
            if (content := generation.content()) is not None:
                log.info("%s content: %s", generation.response.id, content)
        except Exception:
            log.exception("%s cannot be logged", generation.response.id)

    def _keep_unstored(self, generation: Generation) -> None:
        """Keep unstored background responses in memory, since no open connection delivers them."""
        if generation.response.background and not generation.response.store:
            self._unstored[generation.response.id] = generation
            if len(self._unstored) > MAX_UNSTORED:
                del self._unstored[next(iter(self._unstored))]

    def _refusal(self, caller: Caller, lane: Lane) -> ServerBusy | None:
        """Return the error for a further generation; None if it has a place or an abandoned one yields."""
        if self._first_abandoned(lane) is not None:
            return None
        loads = [generation.load() for generation in self._active]
        return self._admission.refusal(caller, lane, loads, self._pace)

    def _pace(self) -> Pace:
        return measured_pace(self._engine.stats())

    def _make_room(self, caller: Caller, lane: Lane) -> None:
        """Cancel an abandoned generation if a further one has no place otherwise."""
        if self._admission.has_slot(len(self._active)):
            return
        loads = [generation.load() for generation in self._active]
        abandoned = self._first_abandoned(lane)
        if abandoned is not None and self._admission.refusal(caller, lane, loads, Pace) is not None:
            abandoned.cancel()
            del self._active[abandoned]

    def _first_abandoned(self, lane: Lane) -> Generation | None:
        """Return the first generation that waits for a slot without a reader. It yields to a connected client."""
        abandoned = (each for each in self._active if each.lane is lane and each.queued_without_reader)
        return next((each for each in abandoned if each.response.id in self._by_id), None)
