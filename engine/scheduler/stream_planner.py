"""Plan the steps of streams: the tokens that follow for certain, and draft tokens after them.

Forced tokens are certain before they are evaluated. Evaluated together they cost less than one by one, as the tokens of
a prompt do. Sequences with unequal numbers of tokens cost a pass over the weights each, so that in a step all streams
bring equally many, or one stream evaluates its forced tokens alone.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from engine.model import BatchEntry, ModelInfo
from engine.scheduler.ngram_drafter import choose_draft_length
from engine.scheduler.slots import Slot, running_sequence
from engine.scheduler.step_budget import StepBudget

MAX_ROWS = 32
"""Maximum rows of a step with draft tokens or forced ones. Beyond this, each further row costs as much as the one
before it."""


class StreamPlanner:
    """Plans steps without prompts."""

    def __init__(self, info: ModelInfo, budget: StepBudget) -> None:
        self._info = info
        self._budget = budget
        self._was_forced_run = False
        """True if the last step was a forced run: the forced tokens of one of several streams."""

    def entries(self, streams: Sequence[Slot], drafting: bool) -> Iterator[BatchEntry]:
        """Yield the entries of the next step; without draft tokens unless `drafting`."""
        drafting = drafting and self._info.multi_row_logits
        planned = [_Stream(slot, self._info, drafting) for slot in streams]
        longest = max(planned, key=lambda stream: len(stream.certain))
        n_forced = min(len(longest.certain), MAX_ROWS, self._budget.prefill_tokens(len(streams)))
        # After a forced run, all streams get their turn.
        self._was_forced_run = (
            n_forced > 1 < len(streams)
            and not self._was_forced_run
            and self._budget.forced_run_pays(len(streams), n_forced)
        )
        if self._was_forced_run:
            yield longest.entry(n_forced)
        else:
            n = self._rows(planned, drafting)
            yield from (stream.entry(n) for stream in planned)

    def measure(self, streams: int, entries: Sequence[BatchEntry], seconds: float) -> None:
        """Record that `entries` took that long; `streams` is the number of all streams."""
        n = max((len(entry.tokens) for entry in entries), default=1)
        if n > 1 == len(entries) < streams:
            self._budget.record_forced_run(n, seconds)
        else:
            self._budget.record_decode(streams, n - 1, seconds)

    def _rows(self, streams: "Sequence[_Stream]", drafting: bool) -> int:
        """Return the number of tokens for each stream that gives the most tokens a second."""
        longest = max if drafting else min  # draft tokens pad the shorter ones
        limit = min(MAX_ROWS, self._info.max_batch_tokens) // len(streams)
        most = min(limit, longest(stream.available for stream in streams), *(stream.room for stream in streams))
        return 1 + choose_draft_length(streams, max(most, 1) - 1, partial(self._budget.cost, len(streams)))


class _Stream:
    """The tokens that one stream can bring to a step."""

    def __init__(self, slot: Slot, info: ModelInfo, drafting: bool) -> None:
        running = running_sequence(slot)
        self._slot = slot
        self._pending = slot.pending
        self._drafter = running.drafter
        expected = running.expected if info.multi_row_logits else ()
        certain = [*running.tokens[len(slot.cached_tokens) :], *expected]
        self.room = self._pending + running.remaining_tokens(info.n_ctx) - 1
        """Tokens up to the last that may be needed."""
        self.certain: Sequence[int] = certain[: max(self.room, 1)]
        """Tokens to evaluate, whatever is sampled."""
        self._draft: Sequence[int] = ()
        if drafting and not expected:
            self._draft = self._drafter.draft(running.tokens)
        self.available = len(self.certain) + len(self._draft)

    def expected_acceptance(self, n_draft: int) -> float:
        """Return the expected number of tokens from a step with that many tokens after the first."""
        drafted = n_draft + 1 - len(self.certain)
        return n_draft + 1 if drafted < 0 else len(self.certain) - 1 + self._drafter.expected_acceptance(drafted)

    def entry(self, n: int) -> BatchEntry:
        """Return an entry of `n` tokens; padding costs as much as a draft token."""
        tokens = [*self.certain, *self._draft][:n]
        padded = [*tokens, *[tokens[0]] * (n - len(tokens))]
        logits = max(n - self._pending + 1, 0)
        return BatchEntry(self._slot.index, len(self._slot.cached_tokens), padded, logits)
