"""Decide who gets a slot, whose prefix is reused and which tokens go into the next step. Pure.

The inference loop calls `plan`, lets the model carry out the step, and reports the outcome to `update` or `fail`.
"""

import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from engine.job import EngineOutput, Finished, FinishReason, Job, Lane, Progress, Started, Token
from engine.model import BatchEntry, ModelInfo
from engine.prefix_cache import PrefixTree
from engine.scheduler.lanes import Lanes
from engine.scheduler.prefix_reuse import PrefixReuse
from engine.scheduler.prompt_planner import PromptPlanner
from engine.scheduler.slots import Key, Slot, TokenSequence, next_entry, running_sequence
from engine.scheduler.stats import Counters
from engine.scheduler.step import PrefixSave, Step, Transfer
from engine.scheduler.step_budget import StepBudget
from engine.scheduler.stream_planner import StreamPlanner

PREFILL_CHUNK = 16
"""Maximum prompt tokens in one step of a model that evaluates one slot at a time. A cancellation and the other streams
wait for one such step: 50 ms at 300 tokens a second. Larger steps gain less than 5%."""


class Scheduler:
    """Assigns waiting jobs to slots. Running slots share a step, or take turns if the model cannot batch."""

    def __init__(
        self,
        info: ModelInfo,
        end_tokens: Collection[int],
        max_step_seconds: float = 0.0,
        tree: PrefixTree | None = None,
        counters: Counters | None = None,
    ) -> None:
        """`tree`: prefixes beyond those in the slots. The caller carries out the transfers between both."""
        self._counters = counters or Counters()
        self._info = info
        self._end_tokens = frozenset(end_tokens)
        self._slots = [Slot(index) for index in range(info.n_slots)]
        self._active: deque[Slot] = deque()
        """Running slots, in order of admission or of turns."""
        self._lanes = Lanes(self._active)
        self._stepping: Sequence[Slot] = ()
        """Slots of the lane that has the present step."""
        self.prefixes = PrefixReuse(info, self._slots, self._active, self._mark_used, tree)
        self._budget = StepBudget(info.max_batch_tokens, max_step_seconds)
        self._streams = StreamPlanner(info, self._budget)
        self._prompts = PromptPlanner(info, self._budget)
        self._clock = 0
        self._prompt_is_next = False

    def limit_steps(self, seconds: float) -> None:
        """Set the limit of the next steps; see `StepBudget`."""
        self._budget.max_step = seconds

    @property
    def idle(self) -> bool:
        """True if no job waits or runs."""
        return self._lanes.next_lane is None and not self._active

    def add(self, key: Key, job: Job) -> None:
        """Add a job, which waits for a slot."""
        self._lanes.add(TokenSequence(key, job))

    def cancel(self, key: Key) -> None:
        """Remove a job, waiting or running. Ignore a job that has ended: the two events may cross."""
        self._lanes.cancel(key)
        for slot in self._slots:
            if slot.running is not None and slot.running.key == key:
                self._release(slot)

    def plan(self) -> Step:
        """Return the next step; empty when idle."""
        self._lanes.promote()
        transfers = [*self._admit(), *self.prefixes.save_checkpoints(), *self.prefixes.resume_waiting()]
        if not self._active:
            return Step()
        self._stepping = self._lanes.stepping()
        if not self._info.batched:
            slot = self._stepping[0]
            self._active.remove(slot)
            self._active.append(slot)
            return Step(tuple(transfers), (next_entry(slot, PREFILL_CHUNK),))
        return Step(tuple(transfers), tuple(self._step_entries()))

    def update(
        self,
        step: Step,
        sampled: Mapping[int, Sequence[Token]],
        seconds: float,
        forced: Mapping[int, Sequence[int]] = MappingProxyType({}),
    ) -> list[tuple[Key, EngineOutput]]:
        """Record that a step was carried out in that many seconds, and return the outputs.

        `sampled` contains, for each slot with logits, one token a row, up to the first that differs from the draft;
        `forced` the tokens that are certain to follow.
        """
        if step.entries:
            self._measure(step.entries, seconds)
        outputs: list[tuple[Key, EngineOutput]] = []
        for entry in step.entries:
            slot = self._slots[entry.slot]
            running = running_sequence(slot)
            tokens = sampled.get(entry.slot, ())
            wrong = entry.logits - len(tokens)
            slot.cached_tokens[entry.position :] = entry.tokens[: len(entry.tokens) - wrong]
            if running.reported_tokens < 0:
                running.reported_tokens = running.reused_tokens
                outputs.append((running.key, Started(running.reused_tokens)))
            if entry.logits:
                following = forced.get(entry.slot, ())
                if (draft := entry.logits - 1 - len(running.expected)) > 0:
                    self._counters.record_drafts(draft, max(draft - wrong, 0))
                running.drafter.learn([token.id for token in tokens])
                outputs += self._advance(slot, running, tokens, following)
            elif not running.answering and len(slot.cached_tokens) > running.reported_tokens:
                running.reported_tokens = len(slot.cached_tokens)
                outputs.append((running.key, Progress(len(slot.cached_tokens))))
        return outputs

    def fail(
        self, step: Step, message: str, reason: FinishReason = FinishReason.FAILED
    ) -> list[tuple[Key, EngineOutput]]:
        """Record that a step could not be carried out, nor its transfers: its jobs end, all others continue."""
        outputs: list[tuple[Key, EngineOutput]] = []
        self.undo(step.transfers)
        for entry in step.entries:
            slot = self._slots[entry.slot]
            slot.truncate(entry.position if self._info.truncates else 0)
            outputs.append((running_sequence(slot).key, Finished(reason, message)))
            self._release(slot)
        return outputs

    def end(
        self, entry: BatchEntry, message: str, reason: FinishReason = FinishReason.FAILED
    ) -> tuple[Key, EngineOutput]:
        """Record that a job cannot continue after its entry was decoded. The tokens remain in the slot, except for
        drafts, which were not verified."""
        slot = self._slots[entry.slot]
        drafts = max(entry.logits - 1, 0)
        slot.cached_tokens[entry.position :] = entry.tokens[: len(entry.tokens) - drafts]
        output = running_sequence(slot).key, Finished(reason, message)
        self._release(slot)
        return output

    def key(self, slot: int) -> Key:
        """Return the job that runs in a planned slot."""
        return running_sequence(self._slots[slot]).key

    def undo(self, transfers: Sequence[Transfer]) -> None:
        """Record that prefixes did not reach their slots: the jobs evaluate them."""
        for transfer in transfers:
            if not isinstance(transfer, PrefixSave):
                slot = self._slots[transfer.target]
                slot.truncate(0)
                running_sequence(slot).reused_tokens = 0

    def unsaved(self, closing: bool = False) -> Iterator[PrefixSave]:
        """Yield saves of the slots with tokens that may be written to a disk and that the tree lacks, the most recently
        used last. `closing`: the slots are not needed any more."""
        for slot in sorted(self._slots, key=lambda slot: slot.last_used):
            if slot.savable_tokens:
                yield from self.prefixes.save(slot, 0 if closing else None)

    def drop(self, group: str | None) -> None:
        """Forget the tokens of idle slots of an affinity group, and write those of its running jobs to no disk.

        None: the present tokens of all slots are written to no disk. Running jobs may be written from their next turn
        on.
        """
        for slot in self._slots:
            if group in (None, slot.affinity):
                slot.savable_tokens = 0
            if group == slot.affinity and slot.running is None:
                slot.truncate(0)

    def _admit(self) -> Iterator[Transfer]:
        """Move waiting jobs into free slots; interactive ones also into slots that batch jobs leave."""
        while (lane := self._lanes.next_lane) is not None and (free := self._free_slots(lane)):
            running = self._lanes.next(lane)
            slot = self.prefixes.choose_slot(free, running)
            running.reused_tokens = self.prefixes.reusable_tokens(slot, running.tokens)
            checkpoints = self.prefixes.checkpoints(slot, running)
            if running.reused_tokens < len(slot.cached_tokens):
                yield from self.prefixes.save(slot, running.reused_tokens)
                slot.truncate(running.reused_tokens)
                slot.keep_until = 0.0
            elif slot.savable_tokens and not _savable_tokens(slot, running):
                yield from self.prefixes.save(slot)
            slot.running = running
            slot.checkpoints = checkpoints
            slot.savable_tokens = _savable_tokens(slot, running)
            slot.affinity = running.affinity
            slot.keep_until = max(slot.keep_until, self.prefixes.keep_until(running))
            self._mark_used(slot)
            self._active.append(slot)
            yield from self.prefixes.find(slot, running)

    def _free_slots(self, lane: Lane) -> list[Slot]:
        """Return the slots for a job of a lane. A batch job leaves its slot to an interactive job if none is free."""
        free = [slot for slot in self._slots if slot.running is None]
        if free or lane is Lane.BATCH or (slot := self._lanes.preemptible()) is None:
            return free
        running = running_sequence(slot)
        self._counters.preemptions += 1
        self._release(slot)
        running.leave_slot()
        self._lanes.put_back(running)
        return [slot]

    def _step_entries(self) -> Iterator[BatchEntry]:
        """Yield the next tokens of the streams, or as many tokens of one prompt as the budget allows; alternate if
        there are both.

        Combined, the two would cost as much: llama.cpp needs one pass over the weights for each group of sequences with
        equally many tokens. For the same reason prompts are evaluated one by one.
        """
        streams = [slot for slot in self._stepping if slot.streaming]
        prompts = [slot for slot in self._stepping if not slot.streaming and running_sequence(slot).donor is None]
        self._prompt_is_next = bool(prompts) and (self._prompt_is_next or not streams)
        if self._prompt_is_next:
            yield self._prompts.entry(prompts, len(streams), len(self._stepping) - len(streams))
        else:
            # Draft tokens would delay waiting first tokens.
            yield from self._streams.entries(streams, drafting=not prompts)
        self._prompt_is_next = not self._prompt_is_next

    def _measure(self, entries: Sequence[BatchEntry], seconds: float) -> None:
        self._lanes.record(running_sequence(self._slots[entries[0].slot]).is_batch, seconds)
        streams = sum(slot.streaming for slot in self._stepping)
        tokens = sum(len(entry.tokens) for entry in entries)
        if all(self._slots[entry.slot].streaming for entry in entries):
            self._counters.record_decode(seconds)
            self._streams.measure(streams, entries, seconds)
            return
        self._counters.record_prefill(tokens, seconds)
        self._prompts.measure(streams, tokens, seconds)

    def _advance(
        self, slot: Slot, running: TokenSequence, tokens: Sequence[Token], forced: Sequence[int]
    ) -> Iterator[tuple[Key, EngineOutput]]:
        if running.generates_nothing:
            yield running.key, Finished(FinishReason.LENGTH)
            return self._release(slot)
        certain = running.deliverable(forced, self._end_tokens)
        for token in (*tokens, *[Token(each, forced=True) for each in certain]):
            running.tokens.append(token.id)
            ended = FinishReason.STOP if token.id in self._end_tokens else None
            if ended is None:
                self._counters.output_tokens += 1
                self._counters.forced_tokens += token.forced
                yield running.key, token
                ended = FinishReason.LENGTH if running.remaining_tokens(self._info.n_ctx) <= 0 else None
            if ended is not None:
                yield running.key, Finished(ended)
                return self._release(slot)
        return None

    def _release(self, slot: Slot) -> None:
        slot.running = None
        slot.has_new_tokens = True
        self._active.remove(slot)
        self._mark_used(slot)

    def _mark_used(self, slot: Slot) -> None:
        slot.last_used = self._tick()

    def _tick(self) -> int:
        """Advance the clock, and return the time."""
        self._clock += 1
        return self._clock


def _savable_tokens(slot: Slot, running: TokenSequence) -> int:
    """Return the number of first tokens that may be written to a disk from a slot that a job takes.

    Tokens of another affinity group may not: the slot would not show whose they are, once that group is dropped.
    """
    if running.savable:
        return sys.maxsize
    return min(slot.savable_tokens, running.reused_tokens) if slot.affinity == running.affinity else 0
