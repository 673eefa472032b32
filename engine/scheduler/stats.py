"""Counters of the inference thread. It alone writes them; other threads read snapshots."""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram's buckets, from a small model to a slow board."""


class Times(Struct, frozen=True):
    """A histogram of durations."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets in seconds; one more bucket has no bound."""
    counts: tuple[int, ...]
    """Number of durations in each bucket."""
    seconds: float
    """Sum of all durations."""

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean duration in seconds; 0 without any."""
        return self.seconds / self.count if self.count else 0.0


class EngineStats(Struct, frozen=True):
    """Sums since the start, warm-up included, and the sizes of the prefix cache."""

    decode_steps: Times
    """Steps that evaluated no prompt."""
    prefill_steps: Times
    """Steps that evaluated a part of a prompt."""
    evaluated_prompt_tokens: int = 0
    """Prompt tokens that were not in the KV cache."""
    output_tokens: int = 0
    """Generated tokens, forced ones included."""
    forced_tokens: int = 0
    """Tokens that a grammar made certain."""
    draft_tokens: int = 0
    """Draft tokens that were evaluated."""
    accepted_draft_tokens: int = 0
    preemptions: int = 0
    """Number of times that a batch job left its slot to an interactive one."""
    cache_bytes: int = 0
    cache_limit_bytes: int = 0
    cache_evictions: int = 0
    """Number of runs that the prefix cache dropped because it was full."""


class Histogram:
    """Counts durations in buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def record(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def snapshot(self) -> Times:
        """Return the present counts."""
        return Times(self._bounds, tuple(self._counts), self._seconds)


class Counters:
    """Sums of the scheduler."""

    def __init__(self) -> None:
        self._decode_steps = Histogram(STEP_SECONDS)
        self._prefill_steps = Histogram(STEP_SECONDS)
        self._evaluated_prompt_tokens = 0
        self._draft_tokens = 0
        self._accepted_draft_tokens = 0
        self.output_tokens = 0
        self.forced_tokens = 0
        self.preemptions = 0

    def record_decode(self, seconds: float) -> None:
        """Record a step without prompt tokens."""
        self._decode_steps.record(seconds)

    def record_prefill(self, tokens: int, seconds: float) -> None:
        """Record a step with that many prompt tokens."""
        self._evaluated_prompt_tokens += tokens
        self._prefill_steps.record(seconds)

    def record_drafts(self, tokens: int, accepted: int) -> None:
        """Record the draft tokens of one sequence in a step."""
        self._draft_tokens += tokens
        self._accepted_draft_tokens += accepted

    def snapshot(self, cache_bytes: int = 0, cache_limit_bytes: int = 0, cache_evictions: int = 0) -> EngineStats:
        """Return the present sums. Any thread may call."""
        return EngineStats(
            self._decode_steps.snapshot(),
            self._prefill_steps.snapshot(),
            self._evaluated_prompt_tokens,
            self.output_tokens,
            self.forced_tokens,
            self._draft_tokens,
            self._accepted_draft_tokens,
            self.preemptions,
            cache_bytes,
            cache_limit_bytes,
            cache_evictions,
        )
