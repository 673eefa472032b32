"""Find cached prefixes: in the slots' tokens, and in prompts that are being evaluated. Pure."""

from collections.abc import Callable, Iterator, Sequence

from engine.model import ModelInfo
from engine.scheduler.slots import RunningSequence, Slot, common_prefix_length, running_sequence
from engine.scheduler.step import PrefixCopy

# Minimum number of prefix tokens that are worth a copy between slots, or waiting for a donor.
MIN_PREFIX_COPY_TOKENS = 16


class PrefixCache:
    """Chooses slots by their tokens, and copies prefixes between them."""

    def __init__(
        self, info: ModelInfo, slots: Sequence[Slot], active: Sequence[Slot], mark_used: Callable[[Slot], None]
    ) -> None:
        """`active` are the running slots, in order of admission; `mark_used` records that a slot was of use."""
        self._info = info
        self._slots = slots
        self._active = active
        self._mark_used = mark_used

    def choose_slot(self, free: Sequence[Slot], running: RunningSequence) -> Slot:
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
        return max(free, key=lambda slot: (self.reusable_tokens(slot.cached_tokens, prompt), -slot.last_used))

    def reusable_tokens(self, cached: list[int], prompt: list[int]) -> int:
        """Return the number of cached tokens that the prompt can reuse; models that cannot truncate reuse all or
        none."""
        n = common_prefix_length(cached, prompt)
        return n if self._info.truncates or n == len(cached) else 0

    def resume_waiting(self) -> Iterator[PrefixCopy]:
        """Let jobs continue whose donor has evaluated the common prefix or is gone."""
        for slot in self._active:
            running = running_sequence(slot)
            if running.donor is None:
                continue
            donor, n = running.donor
            donor_slot = next((other for other in self._active if other.running is donor), None)
            if donor_slot is None or len(donor_slot.cached_tokens) >= n:
                running.donor = None
                yield from self.find(slot, running)

    def find(self, slot: Slot, running: RunningSequence) -> Iterator[PrefixCopy]:
        """Find a slot that contains, or soon will contain, more of the prompt's beginning than the job's own slot."""
        if not self._info.copies_prefixes:
            return
        min_length = len(slot.cached_tokens) + MIN_PREFIX_COPY_TOKENS
        others = [other for other in self._slots if other is not slot]
        n, source = max(
            ((common_prefix_length(other.cached_tokens, running.tokens), other) for other in others),
            key=_first,
            default=(0, slot),
        )
        running.donor = self._donor(slot, running, max(min_length, n + MIN_PREFIX_COPY_TOKENS))
        if running.donor is None and n >= min_length:
            slot.cached_tokens[:] = source.cached_tokens[:n]
            running.reused_tokens = n
            if not running.savable:
                slot.savable_tokens = min(source.savable_tokens, n)
            self._mark_used(source)
            yield PrefixCopy(source.index, slot.index, n)

    def _donor(self, slot: Slot, running: RunningSequence, min_length: int) -> tuple[RunningSequence, int] | None:
        """Return an earlier job that evaluates the same prefix, with the prefix's length.

        Only jobs that were admitted earlier can be donors, so the first active one always continues.
        """
        earlier = list(self._active)[: self._active.index(slot)]
        found = [
            (common_prefix_length(running_sequence(other).tokens, running.tokens), running_sequence(other))
            for other in earlier
        ]
        n, donor = max(found, key=_first, default=(0, running))
        return (donor, n) if n >= min_length else None


def _first(pair: tuple[int, object]) -> int:
    return pair[0]
