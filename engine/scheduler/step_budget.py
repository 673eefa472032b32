"""How much of a prompt is evaluated between two steps of the streams, and whether guesses pay.

Both are learned from every step: they differ between machines, models and places in the context. A step costs more
than its tokens (each goes once through the weights, and dearer where much is held), so what a token costs is taken
from steps of about the same size: the last ones.
"""

import math
from collections.abc import Mapping

MAX_GAP_STEPS = 2.5
"""How far apart a stream's tokens may be, in usual steps. Three would be felt as more: measured steps scatter."""
MIN_GAP_SECONDS = 0.03
"""How far apart they may always be: nobody sees it, and prompts need some room beside a single quick stream."""
MAX_PREFILL_STEP_SECONDS = 0.25
"""For a step while nobody streams: what a new request waits for at most. (A hang-up interrupts the step.)"""
FIRST_TOKEN_WEIGHT = 3.0
"""How much more a late first token is felt than a gap between two others."""
MIN_PREFILL_TOKENS = 2
"""However long a step takes: with one, nearly all of it is the pass over the weights, and prompts never end."""
INITIAL_PREFILL_TOKENS = 16
"""Before anything is measured."""
INITIAL_DRAFT_COST = 0.6
"""Before anything is measured: how much longer a step takes, where one without a guess takes 1, for each guess that
every stream brings. (Of SmolLM2 on two cores 0.4 with two or three streams, 0.5 with one, 0.8 with eight.)"""
FORGETTING_RATE = 0.002
"""Of the measured cost, with every step without a guess: a stalled step must not put an end to guessing for ever."""
MEAN_WEIGHT = 0.2
"""Of a new measurement in a running mean."""
MAX_OUTLIER_RATIO = 3.0
"""A step that was interrupted by another process says nothing about the model: no measurement counts for more."""


class StepBudget:
    """Learns from `streamed` and `evaluated`, answers with `tokens` and `cost`."""

    def __init__(self, most_tokens: int, max_step_seconds: float = 0.0) -> None:
        """`max_step_seconds` is how far apart a stream's tokens are to be; 0: `MAX_GAP_STEPS` usual steps."""
        self._max_tokens = most_tokens
        self._max_step = max_step_seconds
        self._prefill_seconds_alone = self._prefill_seconds_beside_streams = 0.0
        """Seconds a prompt token takes, in the large steps while nobody streams, and in the small ones."""
        self._decode_seconds: dict[int, float] = {}
        self._draft_costs: dict[int, dict[int, float]] = {}
        """What `cost` says, where it was measured: by streams, and guesses."""

    def prefill_tokens(self, streams: int, prompts: int = 1) -> int:
        """The prompt tokens for a step while so many stream, and so many prompts wait."""
        cost = self._prefill_seconds_beside_streams if streams else self._prefill_seconds_alone
        tokens = int(self._prefill_seconds(streams, prompts) / cost) if cost else INITIAL_PREFILL_TOKENS
        return min(max(tokens, MIN_PREFILL_TOKENS), self._max_tokens)

    def cost(self, streams: int, guesses: int) -> float:
        """How long a step takes in which so many streams bring so many guesses each; without any it takes 1.

        Infinitely long where somebody has said how far apart tokens may be. (To keep them as near as prompts do would
        cost a tenth of the tokens a second; where many are guessed, they are likely to be right.)
        """
        known = self._draft_costs.get(streams, {})
        cost = known.get(guesses) or 1 + self._cost_per_draft_token(known, guesses) * guesses
        too_long = self._max_step and guesses and cost * self._decode_seconds.get(streams, 0.0) > self._max_step
        return math.inf if too_long else cost

    def record_decode(self, streams: int, guesses: int, seconds: float) -> None:
        """Take in a step of so many streams, with so many guesses each."""
        if not guesses:
            self._decode_seconds[streams] = _running_mean(self._decode_seconds.get(streams, 0.0), seconds)
            for number, cost in self._draft_costs.get(streams, {}).items():
                self._draft_costs[streams][number] += FORGETTING_RATE * (1 + INITIAL_DRAFT_COST * number - cost)
        elif usual := self._decode_seconds.get(streams):
            cost = min(seconds / usual, 1.0 + guesses)  # more than that is the doing of another process
            known = self._draft_costs.setdefault(streams, {})
            known[guesses] = _running_mean(known.get(guesses, 0.0), cost)

    def record_prefill(self, streams: int, tokens: int, seconds: float) -> None:
        """Take in a step of as many prompt tokens as were allowed, while so many streams waited."""
        if streams:
            self._prefill_seconds_beside_streams = _running_mean(self._prefill_seconds_beside_streams, seconds / tokens)
        else:
            self._prefill_seconds_alone = _running_mean(self._prefill_seconds_alone, seconds / tokens)

    def _cost_per_draft_token(self, known: Mapping[int, float], guesses: int) -> float:
        """Of a number that was not tried: that of the nearest that was, but never so dear that it is not tried."""
        nearest = min(known, key=lambda number: abs(number - guesses), default=0)
        return min(INITIAL_DRAFT_COST, (known[nearest] - 1) / nearest) if nearest else INITIAL_DRAFT_COST

    def _prefill_seconds(self, streams: int, prompts: int) -> float:
        """Seconds for a step with a prompt: what the streams' own step leaves.

        Where others wait behind that prompt, the few who stream are held up for the many, in proportion.
        """
        if not streams:
            return MAX_PREFILL_STEP_SECONDS
        known = min(self._decode_seconds, key=lambda known: abs(known - streams), default=0)
        usual = self._decode_seconds[known] * streams / known if known else 0.0
        apart = self._max_step or max(MAX_GAP_STEPS * usual, MIN_GAP_SECONDS) * max(
            1.0, FIRST_TOKEN_WEIGHT * (prompts - 1) / streams
        )
        return min(max(apart - usual, MIN_GAP_SECONDS / 10), MAX_PREFILL_STEP_SECONDS)


def _running_mean(mean: float, value: float) -> float:
    return mean + MEAN_WEIGHT * (min(value, MAX_OUTLIER_RATIO * mean) - mean) if mean else value
