"""Learn step times, to decide how many prompt tokens fit between two steps of the streams and whether drafts pay.

Times are learned from every step, since they differ between machines, models and context lengths. A step costs more
than its tokens (one pass over the weights), and tokens cost more in a long context. Therefore the cost of a token is
taken from the last steps of about the same size.
"""

import math
from collections.abc import Mapping

MAX_GAP_STEPS = 2.5
"""Maximum time between two tokens of a stream, in usual steps. Measured steps scatter, so three would feel like
more."""
MIN_GAP_SECONDS = 0.03
"""Time between two tokens, in seconds, that is always allowed: it is invisible, and prompts need some time beside a
single fast stream."""
MAX_PREFILL_STEP_SECONDS = 0.25
"""Maximum seconds of a step with a prompt: a new request waits for one. (A hang-up interrupts the step.) Where this is
less than two of the engine's attention tiles, a step without streams takes up to that many tokens."""
FIRST_TOKEN_WEIGHT = 3.0
"""Weight of a late first token relative to a longer gap between two others."""
MIN_PREFILL_TOKENS = 2
"""Minimum prompt tokens of a step, however long it takes. With one, the pass over the weights would be nearly all of
it."""
INITIAL_PREFILL_TOKENS = 16
"""Prompt tokens of a step before anything is measured."""
INITIAL_DRAFT_COST = 0.6
"""Cost of one draft token for every stream before anything is measured, relative to a step without drafts. (SmolLM2 on
two cores: 0.4 with two or three streams, 0.5 with one, 0.8 with eight.)"""
FORGETTING_RATE = 0.002
"""Fraction by which the measured cost of drafts and of forced runs returns to the initial one with every step without
them: a single stalled step must not end them for ever."""
MEAN_WEIGHT = 0.2
"""Weight of a new measurement in a running mean."""
MAX_OUTLIER_RATIO = 3.0
"""Largest ratio of a measurement to the mean that counts: longer steps were interrupted by other processes."""


class StepBudget:
    """Learns from `record_decode`, `record_prefill` and `record_forced_run`; answers by `prefill_tokens`, `cost` and
    `forced_run_pays`."""

    def __init__(self, max_tokens: int, max_step_seconds: float = 0.0) -> None:
        """`max_step_seconds` limits the time between two tokens of a stream; 0 means `MAX_GAP_STEPS` usual steps."""
        self._max_tokens = max_tokens
        self.max_step = max_step_seconds
        self._prefill_seconds_alone = self._prefill_seconds_beside_streams = 0.0
        """Seconds a prompt token: in large steps without streams, and in small steps beside streams."""
        self._decode_seconds: dict[int, float] = {}
        """Seconds of a step without drafts, by number of streams."""
        self._draft_costs: dict[int, dict[int, float]] = {}
        """Measured values of `cost`, by number of streams and of draft tokens."""
        self._forced_run_seconds: dict[int, float] = {}
        """Seconds of a step of one stream's forced tokens beside other streams, by number of tokens."""

    def prefill_tokens(self, streams: int, prompts: int = 1) -> int:
        """Return the prompt tokens for a step beside that many streams and waiting prompts."""
        cost = self._prefill_seconds_beside_streams if streams else self._prefill_seconds_alone
        tokens = int(self._prefill_seconds(streams, prompts) / cost) if cost else INITIAL_PREFILL_TOKENS
        return min(max(tokens, MIN_PREFILL_TOKENS), self._max_tokens)

    def cost(self, streams: int, n_draft: int) -> float:
        """Return the duration of a step in which every stream has `n_draft` draft tokens, relative to one without any.

        Return infinity if the step would exceed a configured `max_step_seconds`. Without that setting drafts may exceed
        the gap allowed for prompts: enforcing it would cost a tenth of the tokens a second, and many draft tokens are
        likely right.
        """
        measured = self._draft_costs.get(streams, {})
        cost = measured.get(n_draft) or 1 + self._cost_per_draft_token(measured, n_draft) * n_draft
        cost = max(cost, 1.0)  # steps without drafts that other processes delayed make those with drafts look cheaper
        too_long = self.max_step and n_draft and cost * self._decode_seconds.get(streams, 0.0) > self.max_step
        return math.inf if too_long else cost

    def forced_run_pays(self, streams: int, tokens: int) -> bool:
        """True if a step of `tokens` forced tokens of one stream gives more tokens a second than one token of each
        stream. Lengths that were never measured count as little as the nearest one."""
        nearest = min(self._forced_run_seconds, key=lambda measured: abs(measured - tokens), default=tokens)
        run_seconds = self._forced_run_seconds.get(nearest, 0.0) * tokens / nearest
        return tokens * self._decode_seconds.get(streams, math.inf) > streams * run_seconds

    def record_forced_run(self, tokens: int, seconds: float) -> None:
        """Record a step of one stream's forced tokens beside other streams."""
        self._forced_run_seconds[tokens] = _running_mean(self._forced_run_seconds.get(tokens, 0.0), seconds)

    def record_decode(self, streams: int, n_draft: int, seconds: float) -> None:
        """Record a step of that many streams with `n_draft` draft or forced tokens each, besides the first."""
        if not n_draft:
            for tokens in self._forced_run_seconds:
                self._forced_run_seconds[tokens] *= 1 - FORGETTING_RATE
            self._decode_seconds[streams] = _running_mean(self._decode_seconds.get(streams, 0.0), seconds)
            for number, cost in self._draft_costs.get(streams, {}).items():
                self._draft_costs[streams][number] += FORGETTING_RATE * (1 + INITIAL_DRAFT_COST * number - cost)
        elif decode_seconds := self._decode_seconds.get(streams):
            cost = min(seconds / decode_seconds, 1.0 + n_draft)  # other processes cause longer steps
            measured = self._draft_costs.setdefault(streams, {})
            measured[n_draft] = _running_mean(measured.get(n_draft, 0.0), cost)

    def record_prefill(self, streams: int, tokens: int, seconds: float) -> None:
        """Record a full-sized step of prompt tokens, while that many streams waited."""
        if streams:
            self._prefill_seconds_beside_streams = _running_mean(self._prefill_seconds_beside_streams, seconds / tokens)
        else:
            self._prefill_seconds_alone = _running_mean(self._prefill_seconds_alone, seconds / tokens)

    def _cost_per_draft_token(self, measured: Mapping[int, float], n_draft: int) -> float:
        """Return the cost per draft token of the nearest measured number, limited so that an untried number is still
        tried."""
        nearest = min(measured, key=lambda number: abs(number - n_draft), default=0)
        return min(INITIAL_DRAFT_COST, (measured[nearest] - 1) / nearest) if nearest else INITIAL_DRAFT_COST

    def _prefill_seconds(self, streams: int, prompts: int) -> float:
        """Return the seconds for a step with a prompt: the allowed gap minus the streams' own step.

        If other prompts wait, the gap grows in proportion: few streams are delayed for many first tokens.
        """
        if not streams:
            return MAX_PREFILL_STEP_SECONDS
        nearest = min(self._decode_seconds, key=lambda measured: abs(measured - streams), default=0)
        decode_seconds = self._decode_seconds[nearest] * streams / nearest if nearest else 0.0
        gap = self.max_step or max(MAX_GAP_STEPS * decode_seconds, MIN_GAP_SECONDS) * max(
            1.0, FIRST_TOKEN_WEIGHT * (prompts - 1) / streams
        )
        return min(max(gap - decode_seconds, MIN_GAP_SECONDS / 10), MAX_PREFILL_STEP_SECONDS)


def _running_mean(mean: float, value: float) -> float:
    return mean + MEAN_WEIGHT * (min(value, MAX_OUTLIER_RATIO * mean) - mean) if mean else value
