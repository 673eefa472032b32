"""Planned starts of an open loop."""

import random
from collections.abc import Callable, Mapping

ARRIVALS: Mapping[str, Callable[[random.Random, float], float]] = {
    "poisson": lambda rng, rate: rng.expovariate(rate),
    "constant": lambda rng, rate: 1 / rate,
}
"""Name -> the time from one start to the next: users are independent of each other (Poisson), a timer is not."""


def arrivals(kind: str, rate: float, count: int, rng: random.Random) -> list[float]:
    """Return the seconds of that many starts, at `rate` a second on average, the first at once."""
    times = [0.0]
    while len(times) < count:
        times.append(times[-1] + ARRIVALS[kind](rng, rate))
    return times[:count]
