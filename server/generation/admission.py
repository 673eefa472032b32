"""Who may come in: those who get a slot, and so many more who wait for one. Pure.

The others are refused before anything is evaluated, with 503: Codex does not try again after a 429
(responses-api.md, 1.8).
"""

import math
from collections import deque
from collections.abc import Sequence

from server.protocol.errors import ServerBusy

REMEMBERED = 16
"""Answers whose time is the guess for the next ones."""

LONGEST_SECONDS = 120
"""openai-python 3.52 comes again after what it is told, up to this; told more than this, it gives up."""


class AdmissionControl:
    def __init__(self, slots: int, queue: int) -> None:
        self._slots = slots
        self._queue = queue
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    def full(self, inside: int) -> bool:
        return inside >= self._slots + self._queue

    def answered(self, seconds: float) -> None:
        """An answer has had its slot for so long."""
        self._took.append(seconds)

    def refusal(self, inside: int, elapsed: Sequence[float] = ()) -> ServerBusy:
        """`Retry-After`: until all who wait now have had a slot, should their answers take as long as the last did.

        `elapsed`: seconds that the running answers have had their slots. They take longer than that, and so it counts
        where it is more than the others took: the answers that run may be endless.
        """
        waiting = inside - self._slots
        mean = sum(self._took) / len(self._took) if self._took else 0.0
        mean = max(mean, max(elapsed, default=0.0))
        seconds = min(max(math.ceil(mean * (waiting + 1) / self._slots), 1), LONGEST_SECONDS)
        return ServerBusy(
            f"All {self._slots} slots are in use, and {waiting} requests wait for one: try again in {seconds} s.",
            retry_after=seconds,
        )
