"""Heartbeat events before the first item of a stream. Pure.

Most clients get SSE comments instead (`server.api.streaming`), since order checks allow one `response.in_progress`.
Codex resets its idle timeout on events only, so it gets that event repeatedly.
"""

import math

from msgspec.structs import replace

from server.postprocessing import Processor
from server.protocol.events import PromptProgress
from server.stream import InProgress, State, StreamInput

ITEM_STATES = (State.WRITING, State.CALLING, State.LISTING)
"""States of a stream that has an item."""
PROGRESS_SECONDS = 1.0
"""Seconds between two progress events, at least."""


class Heartbeat:
    """Schedule of heartbeats. Times are seconds of any clock."""

    def __init__(self, heartbeat: float, reports_progress: bool, now: float) -> None:
        """Allow `heartbeat` seconds of silence; 0 allows any."""
        self._interval = heartbeat
        self._reports_progress = reports_progress
        self._last = now
        self._last_progress: PromptProgress | None = None
        self._slot_since: float | None = None
        """Time at which the response got its slot."""

    def due(self, state: State) -> float:
        """Return the time of the next heartbeat; infinite if none is due."""
        return self._last + self._interval if self._interval and state not in ITEM_STATES else math.inf

    def due_events(self, state: State, processor: Processor, now: float) -> list[StreamInput]:
        """Return the due event: the response got its slot, made progress with the prompt, or is still running."""
        if state in ITEM_STATES:
            return []
        if processor.started and self._slot_since is None:
            self._slot_since = now
        got_slot = state is State.QUEUED and processor.started
        progress = processor.progress if self._reports_progress else None
        if not (got_slot or self._has_progressed(progress, now) or now >= self.due(state)):
            return []
        self._last, self._last_progress = now, progress
        return [InProgress(progress and replace(progress, time_ms=self._slot_milliseconds(now)))]

    def _has_progressed(self, progress: PromptProgress | None, now: float) -> bool:
        """True if there is progress to report, and the last report was long enough ago."""
        return progress != self._last_progress and now >= self._last + PROGRESS_SECONDS

    def _slot_milliseconds(self, now: float) -> int:
        return 0 if self._slot_since is None else int((now - self._slot_since) * 1e3)
