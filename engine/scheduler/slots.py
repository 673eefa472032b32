"""What the KV cache holds: its slots, who continues them, and which beginnings they have in common."""

from typing import TypeAlias

from engine.job import Job
from engine.scheduler.ngram_drafter import NgramDrafter

Key: TypeAlias = int


class RunningSequence:
    """A job that has a slot. `tokens` is the prompt and what was sampled since."""

    def __init__(self, key: Key, job: Job) -> None:
        self.key = key
        self.tokens = list(job.prompt)
        self.reused_tokens = 0
        """Prompt tokens that needn't be evaluated."""
        self.donor: tuple[RunningSequence, int] | None = None
        """Who is evaluating the same beginning, and how many tokens of it are the same: wait, and take them."""
        self.affinity = job.affinity
        self.savable = job.savable
        self.drafter = NgramDrafter()
        self._max_tokens = len(job.prompt) + job.max_tokens

    def remaining_tokens(self, n_ctx: int) -> int:
        """How many tokens may still be sampled."""
        return min(self._max_tokens, n_ctx) - len(self.tokens)


class Slot:
    """A place in the KV cache: `held` are the tokens in it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.cached_tokens: list[int] = []
        self.running: RunningSequence | None = None
        self.savable_tokens = 0
        """First tokens that may be written to a disk; no fewer than `held` has where all of them may."""
        self.affinity = ""
        """Of what it held last; see Job."""
        self.last_used = 0
        """When the slot was last of use; the scheduler's own count."""

    @property
    def pending(self) -> int:
        """Tokens that are still to be evaluated: 1 while it streams, more in a prompt."""
        return 0 if self.running is None else len(self.running.tokens) - len(self.cached_tokens)


def common_prefix_length(held: list[int], prompt: list[int]) -> int:
    """How many first tokens of `prompt` are held. Its last one never counts: it is evaluated for its logits.

    By halves: comparing lists is done in C, 20 us for 8,000 tokens, where a loop here would take a millisecond.
    """
    low, high = 0, min(len(held), len(prompt) - 1)
    while low < high:
        middle = (low + high + 1) // 2
        if held[low:middle] == prompt[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
