"""The progress line on stderr: requests, rate and time left. It is written between turns, never in a read."""

import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from client import StreamClient
from wording import noun_of

LINE_SECONDS = 10.0
"""Seconds between two lines, where no terminal rewrites the last one."""
REWRITE_SECONDS = 0.5
"""Seconds between two updates of the line in a terminal."""


@dataclass(slots=True)
class Expected:
    """Requests or seconds of one part of the run, as far as they are known."""

    requests: int | None = None
    seconds: float | None = None


class LineOutput(Protocol):
    """Standard error, as far as it is used."""

    def isatty(self) -> bool: ...

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


class ProgressLine:
    """Progress of a run of equal parts: one for each round and server."""

    def __init__(self, parts: int, expected: Expected, stream: LineOutput | None = None) -> None:
        self._stream: LineOutput = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._pause = REWRITE_SECONDS if self._terminal else LINE_SECONDS
        self._parts = parts
        self._expected = expected
        self._done = 0
        self._name = ""
        self._client: StreamClient | None = None
        self._ended = self._reads = 0
        self._begin = self._part_begin = perf_counter()
        self._next = self._begin + self._pause
        self._width = 0

    def begin(self, name: str, client: StreamClient) -> None:
        """Begin a part."""
        self._name, self._client = name, client
        self._ended, self._reads, self._part_begin = client.ended, client.reads, perf_counter()

    def end(self) -> None:
        """End a part. Other parts are expected to have as many requests."""
        self._done += 1
        if self._client and self._expected == Expected():
            self._expected.requests = self._client.ended - self._ended

    def tick(self) -> None:
        """Write the line if it is time."""
        if (now := perf_counter()) >= self._next:
            self._next = now + self._pause
            self._write(self.line(now))

    def close(self) -> None:
        """Remove the line from the terminal."""
        if self._width:
            self._write("")

    def line(self, now: float) -> str:
        """Return the line at a time of the clock."""
        client = self._client
        if client is None:
            return ""
        seconds = max(1e-9, now - self._part_begin)
        ended, reads = client.ended - self._ended, client.reads - self._reads
        requests = noun_of(self._expected.requests or ended, "request")
        wanted = f" of {self._expected.requests}" if self._expected.requests else ""
        rates = f"{ended / seconds:.1f} requests/s, {reads / seconds:.0f} reads/s"
        return f"bench: {self._name}: {ended}{wanted} {requests}, {rates}, {self._left(now, ended)}"

    def _left(self, now: float, ended: int) -> str:
        """Return the time left, if the share of this part can be known."""
        if self._expected.seconds:
            share = (now - self._part_begin) / self._expected.seconds
        elif self._expected.requests:
            share = ended / self._expected.requests
        else:
            return "time left unknown"
        done = self._done + min(1.0, share)
        if done <= 0:
            return "time left unknown"
        left = round((now - self._begin) / done * (self._parts - done))
        return f"{left // 60}:{left % 60:02} left"

    def _write(self, line: str) -> None:
        if self._terminal:
            self._stream.write(f"\r{line:<{self._width}}" + "\r" * (not line))
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()
