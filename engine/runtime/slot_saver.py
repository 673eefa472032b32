"""Save slots while the inference thread is idle: in the prefix cache, so that no job waits for it, and on the disk."""

import logging
from collections.abc import Callable, Iterator

from engine.prefix_cache import CachedRun
from engine.runtime.host_cache import HostCache
from engine.runtime.kv_snapshots import Snapshots
from engine.scheduler import Scheduler

QUICK_SAVE_IDLE_SECONDS = 0.01
"""Idle seconds after which slots are saved. The next request of a client that sends one after the other comes within 3
ms, and a copy meanwhile delays its first byte by 15 %."""
QUICK_SAVE_BYTES = 12 << 20
"""Maximum bytes of a slot that is saved then, in 2 to 12 ms: 512 tokens of SmolLM2."""
LONG_SAVE_IDLE_SECONDS = 1.0
"""Idle seconds after which longer slots are saved. The next turn of an agent comes earlier, and would wait for it."""
SNAPSHOT_IDLE_SECONDS = 30.0
"""Idle seconds after which the KV cache is written to the disk."""

log = logging.getLogger("responsed.engine")


class SlotSaver:
    """Saves slots between steps. Only the inference thread uses it."""

    def __init__(self, cache: HostCache, snapshots: Snapshots | None, n_ctx: int) -> None:
        """`snapshots`: the disk for the cache's runs; those of the last process are adopted before it is written.
        `n_ctx`: maximum tokens of a slot."""
        self._cache = cache
        self._snapshots = snapshots if snapshots and snapshots.limit and cache.tree is not None else None
        self._n_ctx = n_ctx
        self._unsaved = False
        """True if a step has changed slots since the runs were last collected for the disk."""
        self._adopting = False

    def record_step(self) -> None:
        """Record that a step has changed the slots."""
        self._unsaved = self._snapshots is not None

    def set_adopting(self, active: bool) -> None:
        """Record whether further runs of the last process follow."""
        self._adopting = active
        if not active and self._cache.tree is not None and self._cache.tree.size:
            log.info("restored %d MB of the last run's KV cache", self._cache.tree.size // 1_000_000)

    def idle_work(self, scheduler: Scheduler, write: Callable[[list[CachedRun]], None]) -> Iterator[float]:
        """Do the work of an idle thread, part by part. Yield the seconds to wait for a command before each part."""
        prefixes = scheduler.prefixes
        quick, long = self._cache.tokens_in(QUICK_SAVE_BYTES), self._n_ctx
        for seconds, max_tokens in ((QUICK_SAVE_IDLE_SECONDS, quick), (LONG_SAVE_IDLE_SECONDS, long)):
            yield seconds
            while self._cache.has_room_for_copies(prefixes.slot_lengths):
                if (save := prefixes.save_in_advance(max_tokens)) is None:
                    break
                self._cache.save(save)
                yield 0.0
        while self._unsaved:
            yield SNAPSHOT_IDLE_SECONDS - LONG_SAVE_IDLE_SECONDS
            # This thread only copies, in milliseconds; another one writes, since a disk may take seconds.
            if self._snapshots is not None and not self._adopting:
                write(self._savable_runs(scheduler, self._snapshots, closing=False))

    def drop(self, group: str | None, write: Callable[[list[CachedRun]], None]) -> None:
        """Forget the savable runs of an affinity group, or all (None), and write the others anew."""
        self._cache.drop(group)
        if self._snapshots is not None and not self._adopting:
            # Replaces the files of a write in progress.
            write(self._cache.savable_runs((), self._snapshots.limit))

    def close(self, scheduler: Scheduler) -> None:
        """Write the runs for the next process. It may block."""
        if self._snapshots is not None and self._unsaved:
            runs = self._savable_runs(scheduler, self._snapshots, closing=True)
            self._snapshots.write(runs, complete=not self._adopting)

    def _savable_runs(self, scheduler: Scheduler, snapshots: Snapshots, closing: bool) -> list[CachedRun]:
        """Return the runs for the disk, the slots' contents among them. `closing`: see Scheduler."""
        self._unsaved = False
        return self._cache.savable_runs(scheduler.unsaved(closing), snapshots.limit)
