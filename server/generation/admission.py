"""Admission control: requests up to the number of slots and of places in the queue. Pure.

Further requests get a 503 before any prompt is evaluated; Codex does not retry after a 429.
"""

import math
from collections import deque
from collections.abc import Sequence

from server.protocol.errors import ServerBusy

RECENT_GENERATIONS = 16
"""Number of latest generations whose durations estimate the next ones."""

MAX_RETRY_SECONDS = 120
"""Largest `Retry-After` in seconds; openai-python 3.52 ignores larger ones."""


class AdmissionControl:
    def __init__(self, slots: int, queue: int) -> None:
        self._slots = slots
        self.queue = queue
        """Requests that may wait for a slot."""
        self._durations: deque[float] = deque(maxlen=RECENT_GENERATIONS)

    def full(self, active: int) -> bool:
        return active >= self._slots + self.queue

    def record_duration(self, seconds: float) -> None:
        """Record the seconds for which a generation had its slot."""
        self._durations.append(seconds)

    def refusal(self, active: int, elapsed: Sequence[float] = ()) -> ServerBusy:
        """Return the error for a request beyond the limit, with an estimate for `Retry-After`.

        The estimate is the time until all waiting requests have had a slot, at the mean duration of the latest
        generations. `elapsed`, the seconds that the running generations have had their slots, replaces a shorter mean:
        these generations may be endless.
        """
        waiting = active - self._slots
        mean = sum(self._durations) / len(self._durations) if self._durations else 0.0
        mean = max(mean, max(elapsed, default=0.0))
        seconds = min(max(math.ceil(mean * (waiting + 1) / self._slots), 1), MAX_RETRY_SECONDS)
        return ServerBusy(
            f"All {self._slots} slots are in use, and {waiting} requests wait for one; try again in {seconds} s.",
            retry_after=seconds,
        )
