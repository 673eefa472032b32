"""The engine's trio side: `generate` hands a job to the inference thread and returns a channel of its outputs."""

import itertools
import logging
import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

import trio

from engine.job import EngineOutput, Finished, FinishReason, Job, Lane, SamplingParams
from engine.model import Model, ModelError, ThreadCounts
from engine.prefix_cache import CachedRun
from engine.runtime.commands import Adopt, Adopting, Cancel, Command, Drop, LimitSteps, Submit
from engine.runtime.host_cache import HostCache
from engine.runtime.kv_snapshots import Snapshots
from engine.runtime.loop import InferenceLoop, Outputs
from engine.scheduler import EngineStats, Key

DEFAULT_CACHE_BYTES = 256_000_000
"""Limit of the prefix cache in memory."""
WARM_UP_JOB = Job((0,) * 16, 2, SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0))
"""A first step of a prompt (`step_budget.INITIAL_PREFILL_TOKENS`) and one of a single token: otherwise the first client
would wait for these measurements."""
STUCK_SECONDS = 120.0
"""Least step time, in seconds, that means the model is stuck: steps take a tenth of a second, and a few seconds on an
overloaded machine."""
STUCK_STEPS = 10
"""A step that takes this many times the slowest one so far counts as stuck."""

log = logging.getLogger("responsed.engine")


class EngineStopped(Exception):
    """The inference thread has ended; nothing can be generated."""


class Engine:
    """Generations over one model. `run` is the thread's task; all other callers use `generate`."""

    def __init__(
        self,
        model: Model,
        end_tokens: Collection[int],
        max_step_seconds: float = 0.0,
        snapshots: Snapshots | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        threads: ThreadCounts | None = None,
    ) -> None:
        """For `max_step_seconds` see `scheduler.step_budget`. `cache_bytes` limits the prefix cache in memory, which
        `snapshots` stores for the next run; 0 turns off both. Without `threads` the model's threads remain as they
        are."""
        self._model = model
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._cache = HostCache(model, cache_bytes)
        self._loop = InferenceLoop(model, end_tokens, max_step_seconds, self._cache, snapshots, self._inbox, threads)
        self._channels: dict[Key, trio.MemorySendChannel[EngineOutput]] = {}
        self._lanes: dict[Key, Lane] = {}
        """Lanes of the jobs that have a channel."""
        self._keys = itertools.count()
        self._snapshots = snapshots
        self._file_access = trio.CapacityLimiter(1)
        self._nursery: trio.Nursery | None = None
        self._running = False
        self._shutdown_message = "the server is shutting down"

    @property
    def running(self) -> bool:
        """True if `generate` can work."""
        return self._running

    @property
    def stuck(self) -> bool:
        """True if the model does not return from a step: only a restart helps then."""
        began = self._loop.step_began
        limit = max(STUCK_SECONDS, STUCK_STEPS * self._loop.slowest_step)
        return began is not None and time.perf_counter() - began > limit

    def stats(self) -> EngineStats:
        """Return the sums since the start."""
        return self._loop.counters.snapshot(*self._cache.statistics())

    def servers(self) -> tuple[()]:
        """Return nothing: the model is in this process."""
        return ()

    def full(self, lane: Lane = Lane.INTERACTIVE) -> bool:
        """True if another job of a lane would have to wait for a slot. Batch jobs leave theirs to interactive ones."""
        jobs = sum(lane is Lane.BATCH or other is Lane.INTERACTIVE for other in self._lanes.values())
        return jobs >= self._model.info.n_slots

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host the thread until cancelled. Raise the exception that ends the thread."""
        token = trio.lowlevel.current_trio_token()
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._host, token)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._inbox.put(None)
                    self._model.interrupt()
        finally:
            self._nursery = None
            self._running = False
            self._deliver([(key, Finished(FinishReason.FAILED, self._shutdown_message)) for key in self._channels])

    async def warm_up(self) -> None:
        """Generate a few tokens: readiness means that the model works, and step times are known to the first client.

        Raises ModelError.
        """
        with self.generate(WARM_UP_JOB) as outputs:
            async for output in outputs:
                if isinstance(output, Finished) and output.reason is FinishReason.FAILED:
                    raise ModelError(output.message)

    async def restore(self) -> None:
        """Load the last run's snapshots into the prefix cache. Jobs run meanwhile."""
        if self._snapshots is not None and self._cache.tree is not None:
            self._inbox.put(Adopting(active=True))
            await trio.to_thread.run_sync(self._read_snapshots, self._snapshots, limiter=self._file_access)

    async def drop_cached(self, group: str | None = None) -> None:
        """Delete the cached tokens of an affinity group, unless another group had them too, from memory and disk. None:
        all tokens that may be on the disk."""
        try:
            if self._snapshots is not None:
                drop = partial(self._snapshots.drop, group)
                await trio.to_thread.run_sync(drop, limiter=self._file_access)
        finally:
            self._inbox.put(Drop(group))  # after the runs that were being read

    def limit_steps(self, seconds: float) -> None:
        """Set the limit of the next steps; see `__init__`."""
        self._inbox.put(LimitSteps(seconds))

    @contextmanager
    def generate(self, job: Job) -> Iterator[trio.MemoryReceiveChannel[EngineOutput]]:
        """Return a channel of the outputs of `job`; the last one is a `Finished`. Leaving the block stops the
        generation.

        Raises EngineStopped.
        """
        if not self._running:
            raise EngineStopped("the engine has stopped")
        key = next(self._keys)
        # The channel needs no bound of its own (`job.max_tokens` bounds it): the thread must never wait for a client.
        send, receive = trio.open_memory_channel[EngineOutput](math.inf)
        self._channels[key], self._lanes[key] = send, job.lane
        self._inbox.put(Submit(key, job))
        try:
            with receive:
                yield receive
        finally:
            del self._lanes[key]
            if self._channels.pop(key, None) is not None:
                self._inbox.put(Cancel(key))
                if not self._channels:
                    self._model.interrupt()  # no client needs the running step

    async def _host(self, token: trio.lowlevel.TrioToken) -> None:
        """Run the inference thread and the mask thread."""
        threads = trio.CapacityLimiter(2)

        def run() -> None:
            self._loop.run(
                lambda outputs: token.run_sync_soon(self._deliver, outputs),
                lambda runs: token.run_sync_soon(self._write_snapshots, runs),
            )

        try:
            async with trio.open_nursery() as nursery:
                masks = partial(
                    trio.to_thread.run_sync, self._loop.mask_thread.work, thread_name="masks", limiter=threads
                )
                nursery.start_soon(masks)
                await trio.to_thread.run_sync(run, thread_name="inference", limiter=threads)
        except Exception:
            self._shutdown_message = "the inference thread failed; see the server log"
            raise

    def _read_snapshots(self, snapshots: Snapshots) -> None:
        """Hand the last run's snapshots to the inference thread, one by one."""
        try:
            for run in snapshots.read():
                if not self._running:
                    return
                self._inbox.put(Adopt(run))
        except Exception:
            log.exception("the KV cache of the last run cannot be read")
        self._inbox.put(Adopting(active=False))

    def _write_snapshots(self, runs: list[CachedRun]) -> None:
        """Start writing snapshots, on the trio side."""
        if self._snapshots is not None and self._nursery is not None:
            write = partial(trio.to_thread.run_sync, self._snapshots.write, runs, limiter=self._file_access)
            self._nursery.start_soon(write)

    def _deliver(self, outputs: Outputs) -> None:
        """Send outputs to their channels, on the trio side. It never raises: an exception in a run_sync_soon callback
        ends the server."""
        for key, output in outputs:
            ended = isinstance(output, Finished)
            channel = self._channels.pop(key, None) if ended else self._channels.get(key)
            if channel is None:
                continue  # the client has left; its Cancel is in the inbox
            try:
                channel.send_nowait(output)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                continue
            if ended:
                channel.close()
