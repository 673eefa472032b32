"""Find cached prefixes: in the slots' tokens, in prompts that are being evaluated, and in the prefix tree. Pure."""

from collections.abc import Callable, Iterator, Sequence

from engine.model import ModelInfo
from engine.prefix_cache import Match, PrefixTree
from engine.scheduler.slots import Slot, TokenSequence, common_prefix_length, running_sequence
from engine.scheduler.step import PrefixCopy, PrefixRestore, PrefixSave, Transfer

MIN_PREFIX_COPY_TOKENS = 16
"""Minimum number of prefix tokens that are worth a copy between slots, a restore, or waiting for a donor."""
MAX_CHECKPOINTS = 5
"""Maximum checkpoints at the end of a slot's tokens; the first one counts extra."""


class PrefixReuse:
    """Chooses slots by their tokens, and moves prefixes between slots and the tree."""

    def __init__(
        self,
        info: ModelInfo,
        slots: Sequence[Slot],
        active: Sequence[Slot],
        mark_used: Callable[[Slot], None],
        tree: PrefixTree | None,
    ) -> None:
        """`active` are the running slots, in order of admission; `mark_used` records the use of a slot."""
        self._info = info
        self._slots = slots
        self._active = active
        self._mark_used = mark_used
        self._tree = tree

    @property
    def slot_lengths(self) -> list[int]:
        """Numbers of tokens in the slots that have some."""
        return [len(slot.cached_tokens) for slot in self._slots if slot.cached_tokens]

    def choose_slot(self, free: Sequence[Slot], running: TokenSequence) -> Slot:
        """Return the slot whose tokens the prompt continues.

        If there is none and prefixes can be copied, return the slot of the job's affinity group, or the least recently
        used one.
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
        return max(free, key=lambda slot: (self.reusable_tokens(slot, prompt), -slot.last_used))

    def keep_until(self, running: TokenSequence) -> float:
        """Return the time until which a job's tokens should remain in the tree; 0 without a lifetime."""
        return self._tree.now + running.cache_seconds if self._tree is not None and running.cache_seconds else 0.0

    def reusable_tokens(self, slot: Slot, prompt: list[int]) -> int:
        """Return the number of the slot's tokens that the prompt can reuse. Models that cannot truncate reuse all or
        none."""
        n = common_prefix_length(slot.cached_tokens, prompt)
        return n if n == len(slot.cached_tokens) or (self._info.truncates and n >= slot.min_tokens) else 0

    def checkpoints(self, slot: Slot, running: TokenSequence) -> tuple[int, ...]:
        """Return where to save the state of a prompt if states cannot be cut: at its own checkpoints, at those of the
        tokens that it continues, and where it parts from cached tokens, since others will part there too."""
        if self._info.cuts_state or self._tree is None:
            return ()
        lengths = (common_prefix_length(other.cached_tokens, running.tokens) for other in self._slots)
        n = max(*lengths, self._tree.cached_length(running.tokens[:-1]))
        continued = [position for position in slot.checkpoints if position <= running.reused_tokens]
        positions = sorted({*continued, *running.checkpoints})
        if all(abs(n - position) >= MIN_PREFIX_COPY_TOKENS for position in (0, *positions)):
            positions = sorted((*positions, n))
        return tuple(dict.fromkeys((*positions[:1], *positions[-MAX_CHECKPOINTS:])))

    def save_checkpoints(self) -> Iterator[PrefixSave]:
        """Save slots that have reached a checkpoint, if they cannot return to it."""
        for slot in () if self._info.truncates else self._active:
            if len(slot.cached_tokens) in slot.checkpoints:
                yield from self.save(slot)

    def save(self, slot: Slot, keep: int | None = None) -> Iterator[PrefixSave]:
        """Save the slot's tokens if the tree lacks them; otherwise record their use there. If the slot will lose all
        but the first `keep` tokens, do the same at each checkpoint after these to which it can return."""
        if self._tree is None:
            return
        ends = [len(slot.cached_tokens)]
        if keep is not None and self._info.truncates:
            ends += [end for end in reversed(slot.checkpoints) if max(keep, slot.min_tokens) <= end < ends[0]]
        for end in ends:
            tokens, savable = tuple(slot.cached_tokens[:end]), min(slot.savable_tokens, end)
            if self._tree.missing(tokens) is not None:
                yield PrefixSave(slot.index, tokens, savable, slot.affinity, slot.keep_until)
            else:
                self._tree.record_use(tokens, slot.affinity, savable, keep_until=slot.keep_until)

    def save_in_advance(self, max_tokens: int) -> PrefixSave | None:
        """Return a save of a free slot with at most `max_tokens`, so that its next job need not wait for that; None if
        there is none. Each slot is saved once after a job, the one that will be overwritten first before the others."""
        for slot in sorted(self._slots, key=lambda slot: slot.last_used):
            if slot.has_new_tokens and slot.running is None and len(slot.cached_tokens) <= max_tokens:
                slot.has_new_tokens = False
                if (save := next(self.save(slot), None)) is not None:
                    return save
        return None

    def resume_waiting(self) -> Iterator[Transfer]:
        """Let jobs continue whose donor has evaluated the common prefix, is gone or is set aside."""
        for slot in self._active:
            running = running_sequence(slot)
            if running.donor is None:
                continue
            donor, n = running.donor
            donor_slot = next((other for other in self._active if other.running is donor), None)
            if _is_set_aside(donor, running):
                donor_slot = None
            saved = int(not self._info.copies_prefixes)  # a checkpoint is saved before the donor's next step
            if donor_slot is None or len(donor_slot.cached_tokens) >= n + saved:
                running.donor = None
                yield from self.find(slot, running)

    def find(self, slot: Slot, running: TokenSequence) -> Iterator[Transfer]:
        """Find a slot that contains, or soon will contain, more of the prompt's beginning than the job's own slot, or
        saved states of it."""
        min_length = len(slot.cached_tokens) + MIN_PREFIX_COPY_TOKENS
        match = Match() if self._tree is None else self._tree.match(running.tokens)
        n, source = self._longest(slot, running)
        running.donor = self._donor(slot, running, max(min_length, max(n, match.n) + MIN_PREFIX_COPY_TOKENS))
        if running.donor is not None:
            return
        if match.n >= max(n, min_length):
            _take(slot, running, match.n, running.tokens)
            if not self._info.cuts_state:
                slot.min_tokens = match.n
            yield PrefixRestore(slot.index, tuple(slot.cached_tokens), match.states)
        elif n >= min_length:
            _take(slot, running, n, source.cached_tokens)
            slot.min_tokens = source.min_tokens
            self._mark_used(source)
            yield PrefixCopy(source.index, slot.index, n)
        if self._tree is not None:
            savable = len(slot.cached_tokens) if running.savable else 0
            self._tree.record_use(slot.cached_tokens, running.affinity, savable, keep_until=self.keep_until(running))

    def _longest(self, slot: Slot, running: TokenSequence) -> tuple[int, Slot]:
        """Return another slot with the longest prefix to copy, with its length."""
        others = [other for other in self._slots if other is not slot] if self._info.copies_prefixes else []
        found = ((self.reusable_tokens(other, running.tokens), other) for other in others)
        return max(found, key=_first, default=(0, slot))

    def _donor(self, slot: Slot, running: TokenSequence, min_length: int) -> tuple[TokenSequence, int] | None:
        """Return an earlier job that evaluates the same prefix, with the prefix's length.

        Only jobs that were admitted earlier can be donors, and no batch job to an interactive one, so the first active
        one of each lane always continues.
        """
        if not self._info.copies_prefixes and self._tree is None:
            return None
        earlier = [
            other
            for other in list(self._active)[: self._active.index(slot)]
            if not _is_set_aside(running_sequence(other), running)
        ]
        found = [(self._shared_length(other, running.tokens), running_sequence(other)) for other in earlier]
        n, donor = max(found, key=_first, default=(0, running))
        return (donor, n) if n >= min_length else None

    def _shared_length(self, donor: Slot, prompt: list[int]) -> int:
        """Return the number of tokens that a prompt can get from a job: up to a checkpoint if none can be copied."""
        n = common_prefix_length(running_sequence(donor).tokens, prompt)
        if self._info.copies_prefixes:
            return n
        cached = len(donor.cached_tokens)
        return max((position for position in donor.checkpoints if cached <= position <= n), default=0)


def _take(slot: Slot, running: TokenSequence, n: int, tokens: Sequence[int]) -> None:
    """Record that the slot gets a prefix of `n` tokens."""
    slot.cached_tokens[:] = tokens[:n]
    running.reused_tokens = n


def _is_set_aside(donor: TokenSequence, running: TokenSequence) -> bool:
    """True if the donor has no step while the other job runs."""
    return donor.is_batch and not running.is_batch


def _first(pair: tuple[int, object]) -> int:
    return pair[0]
