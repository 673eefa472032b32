"""How many prompt tokens a step may carry, so that streams in progress keep flowing.

A step with n streams and p prompt tokens takes about `decode[n] + p * per_token`. Both are measured all the time:
they differ between machines, models and places in the context.
"""

STEPS = 2.5
"""How much longer than without a prompt a step may take. Three would be felt as three: measured steps scatter."""
ALONE_SECONDS = 0.1
"""For a step in which nobody streams: what a new request or a hang-up waits for at most."""
FIRST_TOKENS = 16
"""Before anything is measured."""
FIRST_DRAFT_COST = 0.4
"""Before anything is measured: what it is on small CPUs."""
WEIGHT = 0.2
"""Of a new measurement in the running mean."""
OUTLIER = 3.0
"""A step that was interrupted by another process says nothing about the model: no measurement counts for more."""


class Pace:
    """Learns from `took`, answers with `tokens`."""

    def __init__(self, most_tokens: int, max_step_seconds: float = 0.0) -> None:
        """`max_step_seconds` is the longest a step is to take while somebody streams; 0: `STEPS` as long as usual."""
        self._most = most_tokens
        self._max_step = max_step_seconds
        self._per_token = 0.0
        self._decode: dict[int, float] = {}

    def tokens(self, streams: int) -> int:
        """The prompt tokens for a step beside so many streams; at least one, so that every prompt comes to an end."""
        if not self._per_token:
            return FIRST_TOKENS
        usual = self._usual(streams)
        limit = (self._max_step or STEPS * usual) if streams else ALONE_SECONDS
        return max(1, min(int((limit - usual) / self._per_token), self._most - streams))

    def draft_cost(self, streams: int) -> float:
        """What a guessed token costs beside so many streams, where a token that goes alone costs 1."""
        usual = self._usual(streams)
        return self._per_token * streams / usual if usual and self._per_token else FIRST_DRAFT_COST

    def took(self, streams: int, tokens: int, seconds: float) -> None:
        """Take in a measured step."""
        if tokens == 0:
            self._decode[streams] = _mean(self._decode.get(streams, 0.0), seconds)
        else:
            self._per_token = _mean(self._per_token, max(seconds - self._usual(streams), 0.0) / tokens)

    def _usual(self, streams: int) -> float:
        """Seconds of a step with so many streams and no prompt: measured, or from the nearest measured number."""
        if streams in self._decode or not self._decode:
            return self._decode.get(streams, 0.0) if streams else 0.0
        nearest = min(self._decode, key=lambda known: abs(known - streams))
        return self._decode[nearest] * streams / nearest


def _mean(mean: float, value: float) -> float:
    return mean + WEIGHT * (min(value, OUTLIER * mean) - mean) if mean else value
