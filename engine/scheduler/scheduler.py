"""Pure decisions: who gets a slot, whose prefix is reused, which tokens go into the next step.

The worker calls `plan`, lets the model do what it says, and tells the outcome with `absorb` or `fail`.
"""

import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from engine.job import EngineOutput, Finished, FinishReason, Job, Progress, Started, Token
from engine.model import BatchEntry, ModelInfo
from engine.scheduler.ngram_drafter import choose_draft_length
from engine.scheduler.queue import FairQueue
from engine.scheduler.slots import Key, RunningSequence, Slot, common_prefix_length
from engine.scheduler.step import PrefixCopy, Step
from engine.scheduler.step_budget import StepBudget

# Prompt tokens in one step of a model that evaluates one slot at a time. A hang-up and the other streams wait for no
# more than this: 50 ms where a machine evaluates 300 tokens a second. Larger chunks gain less than 5%.
PREFILL_CHUNK = 16

# Of the steps that evaluate prompts.
OLDEST_PROMPT_INTERVAL = 8

# Of a step in which streams are guessed at. Beyond that, each costs as much as the one before it.
MAX_DRAFT_ROWS = 32

# Fewer tokens than this aren't worth a copy between slots, nor waiting for somebody who evaluates them.
MIN_PREFIX_COPY_TOKENS = 16


class Scheduler:
    """Jobs wait for a slot. The slots that run go together, or take turns where the model can't."""

    def __init__(self, info: ModelInfo, end_tokens: Collection[int], max_step_seconds: float = 0.0) -> None:
        self._info = info
        self._end_tokens = frozenset(end_tokens)
        self._slots = [Slot(index) for index in range(info.n_slots)]
        self._queue = FairQueue()
        self._active: deque[Slot] = deque()
        """The slots that run, in order of admission, or of turns."""
        self._budget = StepBudget(info.max_batch_tokens, max_step_seconds)
        self._prefill_limit = 0
        """Prompt tokens of the last step that has some."""
        self._clock = 0
        self._prompt_is_next = False

    @property
    def idle(self) -> bool:
        return not self._queue and not self._active

    def add(self, key: Key, job: Job) -> None:
        self._queue.add(key, job)

    def cancel(self, key: Key) -> None:
        """Forget a job, wherever it is. One that has ended already is no error: the two may cross."""
        self._queue.cancel(key)
        for slot in self._slots:
            if slot.running is not None and slot.running.key == key:
                self._release(slot)

    def plan(self) -> Step:
        """The next step; empty when idle."""
        shares = [*self._admit(), *self._await_prefix()]
        if not self._active:
            return Step()
        if not self._info.batched:
            self._active.rotate(-1)
            return Step(entries=(_batch_entry(self._active[-1], PREFILL_CHUNK),))
        return Step(tuple(shares), tuple(self._step_entries()))

    def update(
        self, plan: Step, sampled: Mapping[int, Sequence[Token]], seconds: float
    ) -> list[tuple[Key, EngineOutput]]:
        """Take in that `plan` was carried out in so much time.

        `sampled` has for each slot with logits a token of each row, up to the first that no guess foresaw.
        """
        self._measure(plan.entries, seconds)
        pieces: list[tuple[Key, EngineOutput]] = []
        for chunk in plan.entries:
            slot = self._slots[chunk.slot]
            running = _running(slot)
            tokens = sampled.get(chunk.slot, ())
            wrong = chunk.logits - len(tokens)
            slot.cached_tokens[chunk.position :] = chunk.tokens[: len(chunk.tokens) - wrong]
            if chunk.position == running.reused_tokens:
                pieces.append((running.key, Started(running.reused_tokens)))
            if chunk.logits:
                running.drafter.learn([token.id for token in tokens])
                pieces += self._advance(slot, running, tokens)
            else:
                pieces.append((running.key, Progress(len(slot.cached_tokens))))
        return pieces

    def fail(
        self, plan: Step, message: str, reason: FinishReason = FinishReason.FAILED
    ) -> list[tuple[Key, EngineOutput]]:
        """Take in that `plan` could not be carried out: its jobs end, the others go on."""
        pieces: list[tuple[Key, EngineOutput]] = []
        for share in plan.copies:
            target = self._slots[share.target]
            target.cached_tokens.clear()
            _running(target).reused_tokens = 0
        for chunk in plan.entries:
            slot = self._slots[chunk.slot]
            del slot.cached_tokens[chunk.position :]
            pieces.append((_running(slot).key, Finished(reason, message)))
            self._release(slot)
        return pieces

    def key(self, slot: int) -> Key:
        """Who runs in a slot that was just planned."""
        return _running(self._slots[slot]).key

    def savable_slots(self) -> list[tuple[int, tuple[int, ...]]]:
        """Slots whose tokens may all be written to a disk, and their tokens, the most useful first.

        A slot that is the beginning of another is left out.
        """
        savable = (
            slot for slot in self._slots if slot.cached_tokens and slot.savable_tokens >= len(slot.cached_tokens)
        )
        slots = sorted(savable, key=lambda slot: slot.last_used, reverse=True)
        longer = {
            id(slot): [other.cached_tokens for other in slots if len(other.cached_tokens) > len(slot.cached_tokens)]
            for slot in slots
        }
        return [
            (slot.index, tuple(slot.cached_tokens))
            for slot in slots
            if not any(held[: len(slot.cached_tokens)] == slot.cached_tokens for held in longer[id(slot)])
        ]

    def adopt(self, slot: int, tokens: Sequence[int]) -> None:
        """Take in that a slot, before anything ran in it, holds `tokens`."""
        self._slots[slot].cached_tokens[:] = tokens
        self._slots[slot].savable_tokens = len(tokens)
        self._mark_used(self._slots[slot])

    def forbid_saving(self) -> None:
        """Let nothing that the slots have now be savable; jobs that run may be saved from their next turn on."""
        for slot in self._slots:
            slot.savable_tokens = 0

    def _admit(self) -> Iterator[PrefixCopy]:
        while self._queue and (free := [slot for slot in self._slots if slot.running is None]):
            running = RunningSequence(*self._queue.next())
            slot = self._choose_slot(free, running)
            running.reused_tokens = self._reusable_tokens(slot.cached_tokens, running.tokens)
            del slot.cached_tokens[running.reused_tokens :]
            slot.running = running
            slot.savable_tokens = sys.maxsize if running.savable else min(slot.savable_tokens, running.reused_tokens)
            slot.affinity = running.affinity
            self._mark_used(slot)
            self._active.append(slot)
            yield from self._find_prefix(slot, running)

    def _choose_slot(self, free: Sequence[Slot], running: RunningSequence) -> Slot:
        """The slot that the prompt continues.

        Else, where prefixes can be copied, the one that its kin left; else the one that is longest of no use.
        """
        prompt = running.tokens
        if self._info.copies_prefixes:
            free = (
                [
                    slot
                    for slot in free
                    if len(slot.cached_tokens) == common_prefix_length(slot.cached_tokens, prompt) > 0
                ]
                or [slot for slot in free if slot.affinity == running.affinity != ""]
                or [min(free, key=lambda slot: slot.last_used)]
            )
        return max(free, key=lambda slot: (self._reusable_tokens(slot.cached_tokens, prompt), -slot.last_used))

    def _reusable_tokens(self, held: list[int], prompt: list[int]) -> int:
        """Tokens that stay where the model can forget the rest, or all of them."""
        n = common_prefix_length(held, prompt)
        return n if self._info.truncates or n == len(held) else 0

    def _await_prefix(self) -> Iterator[PrefixCopy]:
        """Those whose leader has come far enough, or is gone, go their own way from here."""
        for slot in self._active:
            running = _running(slot)
            if running.donor is None:
                continue
            leader, n = running.donor
            ahead = next((other for other in self._active if other.running is leader), None)
            if ahead is None or len(ahead.cached_tokens) >= n:
                running.donor = None
                yield from self._find_prefix(slot, running)

    def _find_prefix(self, slot: Slot, running: RunningSequence) -> Iterator[PrefixCopy]:
        """Find who holds, or is going to hold, more of the prompt's beginning than the slot itself."""
        if not self._info.copies_prefixes:
            return
        least = len(slot.cached_tokens) + MIN_PREFIX_COPY_TOKENS
        others = [other for other in self._slots if other is not slot]
        n, source = max(
            ((common_prefix_length(other.cached_tokens, running.tokens), other) for other in others),
            key=_first,
            default=(0, slot),
        )
        running.donor = self._donor(slot, running, max(least, n + MIN_PREFIX_COPY_TOKENS))
        if running.donor is None and n >= least:
            slot.cached_tokens[:] = source.cached_tokens[:n]
            running.reused_tokens = n
            if not running.savable:
                slot.savable_tokens = min(source.savable_tokens, n)
            self._mark_used(source)
            yield PrefixCopy(source.index, slot.index, n)

    def _donor(self, slot: Slot, running: RunningSequence, least: int) -> tuple[RunningSequence, int] | None:
        """Only who was admitted earlier leads: so the first in the row always goes on."""
        earlier = list(self._active)[: self._active.index(slot)]
        found = [(common_prefix_length(_running(other).tokens, running.tokens), _running(other)) for other in earlier]
        n, leader = max(found, key=_first, default=(0, running))
        return (leader, n) if n >= least else None

    def _step_entries(self) -> Iterator[BatchEntry]:
        """A token for everyone who streams, or as much of a prompt as the pace allows: where there are both, in turn.

        Together they would cost the same: sequences that bring unequal numbers of tokens take llama.cpp a pass over
        the weights each. For the same reason prompts go one by one, and all streams bring equally many guesses.
        """
        streams = [slot for slot in self._active if slot.pending == 1]
        prompts = [slot for slot in self._active if slot.pending > 1 and _running(slot).donor is None]
        self._prompt_is_next = bool(prompts) and (self._prompt_is_next or not streams)
        if self._prompt_is_next:
            waiting = len(self._active) - len(streams)
            self._prefill_limit = self._budget.prefill_tokens(len(streams), waiting)
            slot = self._next_prompt(prompts)
            tile = 1 if streams else self._info.attention_tile
            yield _batch_entry(slot, _even_part_size(slot.pending, self._prefill_limit, tile))
        elif self._info.multi_row_logits and not prompts:  # who waits for a first token doesn't wait for guesses too
            yield from self._decode_entries(streams)
        else:
            yield from (_batch_entry(slot, 1) for slot in streams)
        self._prompt_is_next = not self._prompt_is_next

    def _next_prompt(self, prompts: Sequence[Slot]) -> Slot:
        """The shortest; but now and then the one that waits longest, lest short ones keep it waiting for ever."""
        self._clock += 1
        return prompts[0] if self._clock % OLDEST_PROMPT_INTERVAL == 0 else min(prompts, key=lambda slot: slot.pending)

    def _decode_entries(self, streams: Sequence[Slot]) -> Iterator[BatchEntry]:
        """The last token of each, and guesses of what comes."""
        several = [_running(slot) for slot in streams]
        guesses = [running.drafter.draft(running.tokens) for running in several]
        room = min(running.remaining_tokens(self._info.n_ctx) for running in several)
        rows = min(MAX_DRAFT_ROWS, self._info.max_batch_tokens) // len(streams)
        most = max(min(max(map(len, guesses)), room - 1, rows - 1), 0)
        n = choose_draft_length(
            [running.drafter for running in several], most, partial(self._budget.cost, len(streams))
        )
        for slot, running, guess in zip(streams, several, guesses, strict=True):
            last = running.tokens[-1]
            filled = [*guess[:n], *[last] * (n - len(guess))]  # a place costs the same, whatever is in it
            yield BatchEntry(slot.index, len(slot.cached_tokens), [last, *filled], logits=1 + n)

    def _measure(self, chunks: Sequence[BatchEntry], seconds: float) -> None:
        streams = sum(slot.pending == 1 for slot in self._active)
        tokens = sum(len(chunk.tokens) for chunk in chunks)
        if all(chunk.logits == len(chunk.tokens) for chunk in chunks):
            self._budget.record_decode(streams, max((chunk.logits for chunk in chunks), default=1) - 1, seconds)
        elif 2 * tokens > self._prefill_limit:  # the pass over the weights makes the tokens of short steps dearer
            self._budget.record_prefill(streams, tokens, seconds)

    def _advance(
        self, slot: Slot, running: RunningSequence, tokens: Sequence[Token]
    ) -> Iterator[tuple[Key, EngineOutput]]:
        for token in tokens:
            running.tokens.append(token.id)
            ended = FinishReason.STOP if token.id in self._end_tokens else None
            if ended is None:
                yield running.key, token
                ended = FinishReason.LENGTH if running.remaining_tokens(self._info.n_ctx) <= 0 else None
            if ended is not None:
                yield running.key, Finished(ended)
                return self._release(slot)
        return None

    def _release(self, slot: Slot) -> None:
        slot.running = None
        self._active.remove(slot)
        self._mark_used(slot)

    def _mark_used(self, slot: Slot) -> None:
        self._clock += 1
        slot.last_used = self._clock


def _batch_entry(slot: Slot, most: int) -> BatchEntry:
    running, position = _running(slot), len(slot.cached_tokens)
    tokens = running.tokens[position : position + most]
    return BatchEntry(slot.index, position, tokens, logits=int(position + len(tokens) == len(running.tokens)))


def _even_part_size(tokens: int, most: int, least: int) -> int:
    """The size of equal parts of at most so many tokens: a short rest would cost a pass over the weights as well.

    Rather of too many tokens than of less than `least`.
    """
    parts = min(-(-tokens // most), max(tokens // least, 1))
    return -(-tokens // parts)


def _running(slot: Slot) -> RunningSequence:
    assert slot.running is not None, "only slots that run are planned"
    return slot.running


def _first(pair: tuple[int, object]) -> int:
    return pair[0]
