"""Events that show that a stream lives before its first item. Pure.

Most clients get SSE comments instead (`follow`), since checks of order allow one `response.in_progress`. Codex resets
its idle timeout at events only, so it gets that event again.
"""

import math

from msgspec.structs import replace

from server.protocol.events import PromptProgress
from server.stream import InProgress, OutputProcessor, State, StreamInput

BEGUN = (State.WRITING, State.CALLING)
"""States of a stream in which there is something of the answer."""
PROGRESS_SECONDS = 1.0
"""How often progress is told, at most."""


class Heartbeat:
    """Times are in seconds, of any clock."""

    def __init__(self, heartbeat: float, tells_progress: bool, now: float) -> None:
        """`heartbeat`: the longest silence; 0: any."""
        self._heartbeat = heartbeat
        self._tells_progress = tells_progress
        self._last = now
        self._told: PromptProgress | None = None
        self._began: float | None = None
        """When it got its slot."""

    def due(self, state: State) -> float:
        """When the silence has been too long."""
        return self._last + self._heartbeat if self._heartbeat and state not in BEGUN else math.inf

    def due_events(self, state: State, answer: OutputProcessor, now: float) -> list[StreamInput]:
        """The sign that is due: that it has its turn, how much of the prompt is read, or just that it goes on."""
        if state in BEGUN:
            return []
        turn = state is State.QUEUED and answer.started
        if answer.started and self._began is None:
            self._began = now
        progress = answer.progress if self._tells_progress else None
        further = progress != self._told and now >= self._last + PROGRESS_SECONDS
        if not (turn or further or now >= self.due(state)):
            return []
        self._last, self._told = now, progress
        return [InProgress(progress and replace(progress, time_ms=int((now - (self._began or now)) * 1e3)))]
