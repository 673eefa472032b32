"""How much of a prompt is evaluated between two steps of the streams, and whether guesses pay.

Both are learned from every step: they differ between machines, models and places in the context. A step costs more
than its tokens (each goes once through the weights, and dearer where much is held), so what a token costs is taken
from steps of about the same size: the last ones.
"""

import math
from collections.abc import Mapping

STEPS = 2.5
"""How far apart a stream's tokens may be, in usual steps. Three would be felt as more: measured steps scatter."""
LEAST_SECONDS = 0.03
"""How far apart they may always be: nobody sees it, and prompts need some room beside a single quick stream."""
ALONE_SECONDS = 0.25
"""For a step while nobody streams: what a new request waits for at most. (A hang-up interrupts the step.)"""
MAX_STREAMS_MEASURED = 3.0
"""How much more a late first token is felt than a gap between two others."""
LEAST_TOKENS = 2
"""However long a step takes: with one, nearly all of it is the pass over the weights, and prompts never end."""
FIRST_TOKENS = 16
"""Before anything is measured."""
FIRST_GUESS_COST = 0.6
"""Before anything is measured: how much longer a step takes, where one without a guess takes 1, for each guess that
every stream brings. (Of SmolLM2 on two cores 0.4 with two or three streams, 0.5 with one, 0.8 with eight.)"""
FORGETTING = 0.002
"""Of the measured cost, with every step without a guess: a stalled step must not put an end to guessing for ever."""
WEIGHT = 0.2
"""Of a new measurement in a running mean."""
OUTLIER = 3.0
"""A step that was interrupted by another process says nothing about the model: no measurement counts for more."""


class StepBudget:
    """Learns from `streamed` and `evaluated`, answers with `tokens` and `cost`."""

    def __init__(self, most_tokens: int, max_step_seconds: float = 0.0) -> None:
        """`max_step_seconds` is how far apart a stream's tokens are to be; 0: `STEPS` usual steps."""
        self._most = most_tokens
        self._max_step = max_step_seconds
        self._alone = self._beside = 0.0
        """Seconds a prompt token takes, in the large steps while nobody streams, and in the small ones."""
        self._usual: dict[int, float] = {}
        self._guessed: dict[int, dict[int, float]] = {}
        """What `cost` says, where it was measured: by streams, and guesses."""

    def prefill_tokens(self, streams: int, prompts: int = 1) -> int:
        """The prompt tokens for a step while so many stream, and so many prompts wait."""
        cost = self._beside if streams else self._alone
        tokens = int(self._limit(streams, prompts) / cost) if cost else FIRST_TOKENS
        return min(max(tokens, LEAST_TOKENS), self._most)

    def cost(self, streams: int, guesses: int) -> float:
        """How long a step takes in which so many streams bring so many guesses each; without any it takes 1.

        Infinitely long where somebody has said how far apart tokens may be. (To keep them as near as prompts do would
        cost a tenth of the tokens a second; where many are guessed, they are likely to be right.)
        """
        known = self._guessed.get(streams, {})
        cost = known.get(guesses) or 1 + self._slope(known, guesses) * guesses
        too_long = self._max_step and guesses and cost * self._usual.get(streams, 0.0) > self._max_step
        return math.inf if too_long else cost

    def record_decode(self, streams: int, guesses: int, seconds: float) -> None:
        """Take in a step of so many streams, with so many guesses each."""
        if not guesses:
            self._usual[streams] = _mean(self._usual.get(streams, 0.0), seconds)
            for number, cost in self._guessed.get(streams, {}).items():
                self._guessed[streams][number] += FORGETTING * (1 + FIRST_GUESS_COST * number - cost)
        elif usual := self._usual.get(streams):
            cost = min(seconds / usual, 1.0 + guesses)  # more than that is the doing of another process
            known = self._guessed.setdefault(streams, {})
            known[guesses] = _mean(known.get(guesses, 0.0), cost)

    def record_prefill(self, streams: int, tokens: int, seconds: float) -> None:
        """Take in a step of as many prompt tokens as were allowed, while so many streams waited."""
        if streams:
            self._beside = _mean(self._beside, seconds / tokens)
        else:
            self._alone = _mean(self._alone, seconds / tokens)

    def _slope(self, known: Mapping[int, float], guesses: int) -> float:
        """Of a number that was not tried: that of the nearest that was, but never so dear that it is not tried."""
        nearest = min(known, key=lambda number: abs(number - guesses), default=0)
        return min(FIRST_GUESS_COST, (known[nearest] - 1) / nearest) if nearest else FIRST_GUESS_COST

    def _limit(self, streams: int, prompts: int) -> float:
        """Seconds for a step with a prompt: what the streams' own step leaves.

        Where others wait behind that prompt, the few who stream are held up for the many, in proportion.
        """
        if not streams:
            return ALONE_SECONDS
        known = min(self._usual, key=lambda known: abs(known - streams), default=0)
        usual = self._usual[known] * streams / known if known else 0.0
        apart = self._max_step or max(STEPS * usual, LEAST_SECONDS) * max(
            1.0, MAX_STREAMS_MEASURED * (prompts - 1) / streams
        )
        return min(max(apart - usual, LEAST_SECONDS / 10), ALONE_SECONDS)


def _mean(mean: float, value: float) -> float:
    return mean + WEIGHT * (min(value, OUTLIER * mean) - mean) if mean else value
