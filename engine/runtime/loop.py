"""The inference thread: inbox -> plan -> decode -> sample -> update. It alone uses the model.

An exception of one job ends that job, never the thread: an exception from a model, a sampler or a grammar ends the
sequences that it concerns and is logged with its traceback; all other sequences continue.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeAlias

from engine.constraint import Constraint, GrammarError
from engine.job import EngineOutput, Finished, FinishReason, Job, StepTimes, Token
from engine.model import BatchEntry, Model, ModelError, ThreadCounts
from engine.prefix_cache import CachedRun
from engine.runtime.commands import Adopt, Adopting, Cancel, Command, Drop, LimitSteps, Submit
from engine.runtime.host_cache import HostCache
from engine.runtime.kv_snapshots import Snapshots
from engine.runtime.mask_thread import MaskThread
from engine.runtime.step_threads import StepThreads
from engine.runtime.token_picker import TokenPicker
from engine.scheduler import Counters, Key, Scheduler, Step

QUICK_SAVE_IDLE_SECONDS = 0.01
"""Idle seconds after which slots are saved. The next request of a client that sends one after the other comes within 3
ms, and a copy meanwhile delays its first byte by 15 %."""
QUICK_SAVE_BYTES = 12 << 20
"""Maximum bytes of a slot that is saved then, in 2 to 12 ms: 512 tokens of SmolLM2."""
LONG_SAVE_IDLE_SECONDS = 1.0
"""Idle seconds after which longer slots are saved. The next turn of an agent comes earlier, and would wait for it."""
SNAPSHOT_IDLE_SECONDS = 30.0
"""Idle seconds after which the KV cache is written to the disk."""
INTERNAL_ERROR = "Internal error; see the server log."

log = logging.getLogger("responsed.engine")

Outputs: TypeAlias = list[tuple[Key, EngineOutput]]


class InferenceLoop:
    """The state of the inference thread. Only `run` is called, in that thread; commands arrive through `inbox`."""

    def __init__(
        self,
        model: Model,
        end_tokens: Collection[int],
        max_step_seconds: float,
        cache: HostCache,
        snapshots: Snapshots | None,
        inbox: SimpleQueue[Command],
        threads: ThreadCounts | None = None,
    ) -> None:
        """`snapshots`: the disk for the cache's runs; those of the last process are adopted before it is written."""
        self._model = model
        self._end_tokens = end_tokens
        self._max_step_seconds = max_step_seconds
        self._cache = cache
        self.counters = Counters()
        self._scheduler = self._new_scheduler()
        self._pickers: dict[Key, TokenPicker] = {}
        """The pickers of all jobs that have not ended."""
        self._timed: set[Key] = set()
        """The timed jobs among them."""
        self.mask_thread = MaskThread()
        self._threads = StepThreads(model, threads)
        self._inbox = inbox
        self._snapshots = snapshots if snapshots and snapshots.limit and cache.tree is not None else None
        self._unsaved = False
        self._adopting = False
        self.step_began: float | None = None
        """Time at which the running step began, for the watchdog."""
        self.slowest_step = 0.0
        """Seconds of the slowest step so far."""

    @property
    def empty(self) -> bool:
        """True if no job is left. For tests."""
        return not self._pickers and self._scheduler.idle

    def run(self, deliver: Callable[[Outputs], None], write: Callable[[list[CachedRun]], None]) -> None:
        """Work until the command None. `deliver` hands over outputs; `write` hands runs for the disk to another thread,
        which may block."""
        try:
            while self._read_inbox(deliver, write):
                self._unsaved = self._snapshots is not None
                if outputs := self._step():
                    deliver(outputs)
            if self._snapshots is not None and self._unsaved:
                self._snapshots.write(self._savable_runs(closing=True), complete=not self._adopting)
        finally:
            self.mask_thread.close()

    def _new_scheduler(self) -> Scheduler:
        return Scheduler(self._model.info, self._end_tokens, self._max_step_seconds, self._cache.tree, self.counters)

    def _read_inbox(self, deliver: Callable[[Outputs], None], write: Callable[[list[CachedRun]], None]) -> bool:
        """Process the waiting commands; block only when idle. Return False if the thread must end."""
        idle_work = self._idle_work(write)
        while not self._inbox.empty() or self._scheduler.idle:
            try:
                command = self._inbox.get(timeout=next(idle_work, None))
            except Empty:
                continue
            if command is None:
                return False
            self._execute(command, deliver, write)
            idle_work = self._idle_work(write)
        return True

    def _idle_work(self, write: Callable[[list[CachedRun]], None]) -> Iterator[float]:
        """Do the work of an idle thread, part by part. Yield the seconds to wait for a command before each part.

        Slots are saved so that the next job need not wait until its slot is.
        """
        prefixes = self._scheduler.prefixes
        quick, long = self._cache.tokens_in(QUICK_SAVE_BYTES), self._model.info.n_ctx
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
            if not self._adopting:
                write(self._savable_runs())

    def _execute(
        self, command: Command, deliver: Callable[[Outputs], None], write: Callable[[list[CachedRun]], None]
    ) -> None:
        match command:
            case Submit(key, job):
                self._submit(key, job, deliver)
            case Cancel(key):
                self._forget(key)
                self._scheduler.cancel(key)
            case Adopt(run):
                self._cache.adopt(run)
            case Adopting(active):
                self._set_adopting(active)
            case Drop(group):
                self._drop(group, write)
            case LimitSteps(seconds):
                self._max_step_seconds = seconds
                self._scheduler.limit_steps(seconds)

    def _set_adopting(self, active: bool) -> None:
        self._adopting = active
        if not active and self._cache.tree is not None and self._cache.tree.size:
            log.info("restored %d MB of the last run's KV cache", self._cache.tree.size // 1_000_000)

    def _drop(self, group: str | None, write: Callable[[list[CachedRun]], None]) -> None:
        self._scheduler.drop(group)
        self._cache.drop(group)
        if self._snapshots is not None and not self._adopting:
            # Replaces the files of a write in progress.
            write(self._cache.savable_runs((), self._snapshots.limit))

    def _submit(self, key: Key, job: Job, deliver: Callable[[Outputs], None]) -> None:
        """Start a job, or end it at once if it raises."""
        try:
            if not job.prompt:
                raise ValueError("the prompt has no tokens")
            picker = TokenPicker(job, self._end_tokens)
            self._scheduler.add(key, job)
            self._pickers[key] = picker
            if job.timed:
                self._timed.add(key)
        except Exception as error:
            deliver([(key, _failure(error))])

    def _step(self) -> Outputs:
        """Run one step of all sequences. An error that concerns no particular sequence ends all jobs and empties the
        slots."""
        try:
            self._cache.advance_clock()
            outputs = self._carry_out(self._scheduler.plan())
        except Exception as error:
            outputs = [(key, _failure(error)) for key in self._pickers]
            self._scheduler = self._new_scheduler()
        for key, output in outputs:
            if isinstance(output, Finished):
                self._forget(key)
        return outputs

    def _forget(self, key: Key) -> None:
        """Remove a job that has ended; it may be removed already."""
        self._pickers.pop(key, None)
        self._timed.discard(key)

    def _carry_out(self, plan: Step) -> Outputs:
        """Decode a step and update its sequences."""
        self.step_began = time.perf_counter()
        try:
            if left := self._cache.carry_out(plan.transfers):
                self._scheduler.undo(left)
                return []  # the next step plans anew
            began = time.perf_counter()
            rows = sum(len(entry.tokens) for entry in plan.entries)
            with self.mask_thread.computing(self._step_constraints(plan)), self._threads.decoding(rows):
                self._model.decode(plan.entries)
        except Exception as error:
            failure = _failure(error)
            return self._scheduler.fail(plan, failure.message, failure.reason)
        finally:
            self.step_began = None
        seconds = time.perf_counter() - began
        self.slowest_step = max(self.slowest_step, seconds)
        return self._update(plan, began, seconds)

    def _update(self, plan: Step, began: float, seconds: float) -> Outputs:
        """Sample from the decoded logits. A sequence whose sampler or grammar raises ends; the others continue."""
        sampled: dict[int, list[Token]] = {}
        forced: dict[int, Sequence[int]] = {}
        outputs: Outputs = []
        entries: list[BatchEntry] = []
        for entry in plan.entries:
            try:
                if entry.logits:
                    sampled[entry.slot], forced[entry.slot] = self._pick(entry)
            except Exception as error:
                failure = _failure(error)
                outputs += self._scheduler.fail(Step(entries=(entry,)), failure.message, failure.reason)
            else:
                entries.append(entry)
                if self._timed and (key := self._scheduler.key(entry.slot)) in self._timed:
                    outputs.append((key, StepTimes(began, began + seconds, time.perf_counter())))
        if entries:
            outputs += self._scheduler.update(Step(entries=tuple(entries)), sampled, seconds, forced)
        return outputs

    def _step_constraints(self, plan: Step) -> list[Constraint]:
        """Return the constraints of the sequences that get a token from this step."""
        pickers = [self._pickers[self._scheduler.key(entry.slot)] for entry in plan.entries if entry.logits]
        return [picker.constraint for picker in pickers if picker.constraint is not None]

    def _pick(self, entry: BatchEntry) -> tuple[list[Token], Sequence[int]]:
        """Return `TokenPicker.pick` of the entry's logits. Raises GrammarError."""
        picker = self._pickers[self._scheduler.key(entry.slot)]
        draft = entry.tokens[len(entry.tokens) - entry.logits + 1 :]
        return picker.pick(partial(self._model.logits, entry.slot), draft)

    def _savable_runs(self, closing: bool = False) -> list[CachedRun]:
        """Return the runs for the disk, the slots' contents among them. `closing`: see Scheduler."""
        assert self._snapshots is not None, "only runs for the disk are asked for"
        self._unsaved = False
        return self._cache.savable_runs(self._scheduler.unsaved(closing), self._snapshots.limit)


def _failure(error: Exception) -> Finished:
    """Return the output that ends a job. An unexpected error is logged with its traceback."""
    if isinstance(error, GrammarError):
        return Finished(FinishReason.GRAMMAR, str(error))
    if isinstance(error, ModelError):
        return Finished(FinishReason.FAILED, str(error))
    log.error("an internal error ended a generation", exc_info=error)
    return Finished(FinishReason.FAILED, INTERNAL_ERROR)
