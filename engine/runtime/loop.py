"""The inference thread: inbox -> plan -> decode -> sample -> update. It alone uses the model.

An exception of one job ends that job, never the thread: an exception from a model, a sampler or a grammar ends the
sequences that it concerns and is logged with its traceback; all other sequences continue.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
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
from engine.runtime.slot_saver import SlotSaver
from engine.runtime.step_threads import StepThreads
from engine.runtime.token_picker import TokenPicker
from engine.scheduler import Counters, Key, Scheduler, Step

INTERNAL_ERROR = "Internal error; see the server log."
"""Message of a job that an unexpected exception has ended."""

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
        """`cache` and `snapshots`: see `SlotSaver`."""
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
        self._saver = SlotSaver(cache, snapshots, model.info.n_ctx)
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
                self._saver.record_step()
                if outputs := self._step():
                    deliver(outputs)
            self._saver.close(self._scheduler)
        finally:
            self.mask_thread.close()

    def _new_scheduler(self) -> Scheduler:
        return Scheduler(self._model.info, self._end_tokens, self._max_step_seconds, self._cache.tree, self.counters)

    def _read_inbox(self, deliver: Callable[[Outputs], None], write: Callable[[list[CachedRun]], None]) -> bool:
        """Process the waiting commands; block only when idle. Return False if the thread must end."""
        idle_work = self._saver.idle_work(self._scheduler, write)
        while not self._inbox.empty() or self._scheduler.idle:
            try:
                command = self._inbox.get(timeout=next(idle_work, None))
            except Empty:
                continue
            if command is None:
                return False
            self._execute(command, deliver, write)
            idle_work = self._saver.idle_work(self._scheduler, write)
        return True

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
                self._saver.set_adopting(active)
            case Drop(group):
                self._scheduler.drop(group)
                self._saver.drop(group, write)
            case LimitSteps(seconds):
                self._max_step_seconds = seconds
                self._scheduler.limit_steps(seconds)

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

    def _carry_out(self, step: Step) -> Outputs:
        """Decode a step and update its sequences."""
        self.step_began = time.perf_counter()
        try:
            if left := self._cache.carry_out(step.transfers):
                self._scheduler.undo(left)
                return []  # the next step plans anew
            step = Step(entries=step.entries)  # transfers that are carried out survive a failed decode
            began = time.perf_counter()
            rows = sum(len(entry.tokens) for entry in step.entries)
            with self.mask_thread.computing(self._step_constraints(step)), self._threads.decoding(rows):
                self._model.decode(step.entries)
        except Exception as error:
            failure = _failure(error)
            return self._scheduler.fail(step, failure.message, failure.reason)
        finally:
            self.step_began = None
        seconds = time.perf_counter() - began
        self.slowest_step = max(self.slowest_step, seconds)
        return self._update(step, began, seconds)

    def _update(self, step: Step, began: float, seconds: float) -> Outputs:
        """Sample from the decoded logits. A sequence whose sampler or grammar raises ends; the others continue."""
        sampled: dict[int, list[Token]] = {}
        forced: dict[int, Sequence[int]] = {}
        outputs: Outputs = []
        entries: list[BatchEntry] = []
        for entry in step.entries:
            try:
                if entry.logits:
                    sampled[entry.slot], forced[entry.slot] = self._pick(entry)
            except Exception as error:
                failure = _failure(error)
                outputs.append(self._scheduler.end(entry, failure.message, failure.reason))
            else:
                entries.append(entry)
                if self._timed and (key := self._scheduler.key(entry.slot)) in self._timed:
                    outputs.append((key, StepTimes(began, began + seconds, time.perf_counter())))
        if entries:
            outputs += self._scheduler.update(Step(entries=tuple(entries)), sampled, seconds, forced)
        return outputs

    def _step_constraints(self, step: Step) -> list[Constraint]:
        """Return the constraints of the sequences that get a token from this step."""
        pickers = [self._pickers[self._scheduler.key(entry.slot)] for entry in step.entries if entry.logits]
        return [picker.constraint for picker in pickers if picker.constraint is not None]

    def _pick(self, entry: BatchEntry) -> tuple[list[Token], Sequence[int]]:
        """Return `TokenPicker.pick` of the entry's logits. Raises GrammarError."""
        picker = self._pickers[self._scheduler.key(entry.slot)]
        draft = entry.tokens[len(entry.tokens) - entry.logits + 1 :]
        return picker.pick(partial(self._model.logits, entry.slot), draft)


def _failure(error: Exception) -> Finished:
    """Return the output that ends a job. An unexpected error is logged with its traceback."""
    if isinstance(error, GrammarError):
        return Finished(FinishReason.GRAMMAR, str(error))
    if isinstance(error, ModelError):
        return Finished(FinishReason.FAILED, str(error))
    log.error("an internal error ended a generation", exc_info=error)
    return Finished(FinishReason.FAILED, INTERNAL_ERROR)
