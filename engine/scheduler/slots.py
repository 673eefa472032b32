"""The slots of the KV cache, and the sequences that run in them."""

from collections.abc import Collection, Sequence
from typing import TypeAlias

from engine.job import Job, Lane
from engine.model import BatchEntry
from engine.prefix_cache import common_length
from engine.scheduler.ngram_drafter import NgramDrafter

Key: TypeAlias = int


class TokenSequence:
    """The prompt of a job and all tokens delivered so far, with the job's state. It has a slot, or waits for one."""

    def __init__(self, key: Key, job: Job) -> None:
        self.key = key
        self.client = job.client
        self.is_batch = job.lane is Lane.BATCH
        """True if the job is in the batch lane now; a batch job may be promoted."""
        self.preemptions = 0
        """Number of times that the job had to leave its slot."""
        self.tokens = list(job.prompt)
        self.reused_tokens = 0
        """Prompt tokens that the KV cache already contained."""
        self.reported_tokens = -1
        """Evaluated prompt tokens that `Started` and `Progress` have reported; -1 before `Started`."""
        self.donor: tuple[TokenSequence, int] | None = None
        """The job that is evaluating the same prefix, with the prefix's length: wait for it, then copy."""
        self.affinity = job.affinity
        self.savable = job.savable
        self.cache_seconds = job.cache_seconds
        self.generates_nothing = job.max_tokens == 0
        """True if the sequence ends with its prompt."""
        self.checkpoints = job.checkpoints
        self.drafter = NgramDrafter()
        self.awaits_logprobs = job.top_logprobs is not None
        self.expected: Sequence[int] = ()
        """Forced tokens that await their logprobs: they are not delivered yet."""
        self._prompt_length = self._prefill_length = len(job.prompt)
        self._max_tokens = len(job.prompt) + job.max_tokens

    def deliverable(self, forced: Sequence[int], end_tokens: Collection[int]) -> Sequence[int]:
        """Return the forced tokens to deliver now. If the job wants logprobs, the next step evaluates them first."""
        waits = self.awaits_logprobs and bool(forced) and forced[0] not in end_tokens
        self.expected = forced if waits else ()
        return () if waits else forced

    @property
    def answering(self) -> bool:
        """True once the first token is sampled."""
        return len(self.tokens) > self._prompt_length

    @property
    def generating(self) -> bool:
        """True once a token is sampled in the present slot."""
        return len(self.tokens) > self._prefill_length

    def leave_slot(self) -> None:
        """Record that the slot is needed for another job: the next slot evaluates all tokens like a prompt."""
        self.preemptions += 1
        self.donor = None
        self._prefill_length = len(self.tokens)

    def remaining_tokens(self, n_ctx: int) -> int:
        """Return the number of tokens that can still be sampled."""
        return min(self._max_tokens, n_ctx) - len(self.tokens)


class Slot:
    """A slot of the KV cache; `cached_tokens` are the tokens in it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.cached_tokens: list[int] = []
        self.min_tokens = 0
        """Number of tokens below which the slot cannot be truncated: restored attention windows lack what was before
        them."""
        self.checkpoints: tuple[int, ...] = ()
        """Places in the tokens where other prompts may part from them, in ascending order; see `Job`."""
        self.running: TokenSequence | None = None
        self.savable_tokens = 0
        """Number of first tokens that may be written to a disk. If all may, it is at least `len(cached_tokens)`."""
        self.affinity = ""
        """Affinity group of the last job; see `Job`."""
        self.keep_until = 0.0
        """Time until which the tokens should remain in the prefix cache, in the tree's clock."""
        self.has_new_tokens = False
        """True if a job has ended since the tokens were last saved for a free slot."""
        self.last_used = 0
        """Time of the last use, in the scheduler's clock ticks."""

    def truncate(self, n: int) -> None:
        """Forget the tokens after the first `n`."""
        del self.cached_tokens[n:]
        self.min_tokens = min(self.min_tokens, n)

    @property
    def pending(self) -> int:
        """Number of tokens to evaluate: the rest of a prompt, or the last sampled token and the forced ones after
        it."""
        return 0 if self.running is None else len(self.running.tokens) - len(self.cached_tokens)

    @property
    def streaming(self) -> bool:
        """True if the next step can sample a token, or if one was sampled."""
        return self.running is not None and (self.pending == 1 or self.running.generating)

    @property
    def until_checkpoint(self) -> int:
        """Number of tokens to evaluate up to the next checkpoint, or to the end."""
        n = len(self.cached_tokens)
        return next((position - n for position in self.checkpoints if n < position < n + self.pending), self.pending)


def common_prefix_length(cached: list[int], prompt: list[int]) -> int:
    """Return the number of first tokens of `prompt` that are cached. Its last token never counts: its logits are
    needed."""
    return min(common_length(cached, prompt), max(len(prompt) - 1, 0))


def running_sequence(slot: Slot) -> TokenSequence:
    """Return the sequence of a slot that has one."""
    assert slot.running is not None, "only running slots are planned"
    return slot.running


def next_entry(slot: Slot, max_tokens: int) -> BatchEntry:
    """Return an entry of a slot's next tokens. The last token of the sequence gets logits."""
    running, position = running_sequence(slot), len(slot.cached_tokens)
    tokens = running.tokens[position : position + max_tokens]
    return BatchEntry(slot.index, position, tokens, logits=int(position + len(tokens) == len(running.tokens)))
