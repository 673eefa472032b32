"""Times of a generation while it runs. Pure."""

import math
from collections.abc import Sequence


class SlotTime:
    """Seconds in which a response has a slot, over all its jobs: queues and calls of MCP servers between them do not
    count."""

    def __init__(self) -> None:
        self._seconds_before = 0.0
        """Seconds of the jobs that have ended."""
        self.since = math.inf
        """Time at which the present job got a slot, an estimate until its first output."""

    def begin(self, now: float, full: bool) -> None:
        """Begin a job. `full`: it waits for a slot."""
        self.since = math.inf if full else now

    def arrived(self, now: float) -> None:
        """Record an output of the job."""
        self.since = min(self.since, now)

    def end(self, now: float) -> None:
        """End the job."""
        self._seconds_before, self.since = self.seconds(now), math.inf

    def deadline(self, seconds: float) -> float:
        """Return the time at which the response has had a slot for that long; infinite while it has none."""
        return self.since + seconds - self._seconds_before

    def seconds(self, now: float) -> float:
        return self._seconds_before + max(now - self.since, 0.0)


class Timings:
    """Times of a generation, in seconds of one clock."""

    def __init__(self, now: float) -> None:
        self.admitted = now
        self.started: float | None = None
        """Time at which it got its slot."""
        self.first_token: float | None = None
        self._last_token: float | None = None
        """Time of the present job's last arrival."""
        self.gaps: list[float] = []
        """Seconds between arrivals of a job's tokens. Tokens that arrive together have one gap."""
        self.jobs = 0
        """Number of jobs that generated tokens."""
        self.tools = self.tools_first = 0.0
        """Seconds in which MCP servers listed tools and executed calls: in all, and before the first token."""

    def record(self, now: float, slot_since: float | None, has_tokens: bool) -> None:
        """Record an arrival of outputs from the engine. `slot_since` is None before it has a slot."""
        if self.first_token is None:  # later jobs of the response get slots of their own
            self.started = slot_since
        if not has_tokens:
            return
        if self.first_token is None:
            self.first_token = now
        if self._last_token is None:
            self.jobs += 1
        else:
            self.gaps.append(now - self._last_token)
        self._last_token = now

    def end_job(self, tools: float) -> None:
        """Begin the next job, after a list or a call of `tools` seconds. The pause is not a gap between tokens."""
        self._last_token = None
        self.tools += tools
        if self.first_token is None:
            self.tools_first += tools


def output_rate(output_tokens: int, gaps: Sequence[float], jobs: int) -> float:
    """Return the tokens per second after the first arrival of each job; 0 without a second one."""
    seconds, tokens = sum(gaps), output_tokens - jobs
    return tokens / seconds if seconds and tokens > 0 else 0.0
