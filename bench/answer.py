"""Parse a recording into an answer with the times of its events, and compute measures from answers.

The standard library's `HTTPResponse` reads the recording, so chunks may be split anywhere. Servers differ in their
frames: `event:`, `sequence_number`, `usage` and `[DONE]` may be missing; only `data.type` counts.
"""

import http.client
import io
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

from client import Recording

_TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


@dataclass(slots=True)
class TimedAnswer:
    """One parsed response. Times are seconds since the request's start; `tokens` is `usage.output_tokens`.

    Without `usage`, `tokens` is the number of text deltas (`counted`), and the tokens of the input are 0.
    """

    first_byte: float | None = None
    deltas: list[float] = field(default_factory=list)
    end: float | None = None
    tokens: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = False
    error: str = ""
    text: str = ""

    def tpot(self) -> Iterator[float]:
        """Yield the time per output token."""
        if self.deltas and self.end is not None and self.tokens > 1:
            yield (self.end - self.deltas[0]) / (self.tokens - 1)

    def between(self, begin: float, end: float) -> "TimedAnswer":
        """Return a copy with only the deltas whose gaps overlap that time, including gaps that cross its borders."""
        first = max(0, bisect_left(self.deltas, begin) - 1)
        return replace(self, deltas=self.deltas[first : bisect_left(self.deltas, end) + 1])


# name -> the formula in words (tools share names, not formulas), and the samples of one answer in seconds.
MEASURES: dict[str, tuple[str, Callable[[TimedAnswer], Iterable[float | None]]]] = {
    "first_byte": ("read with the first byte of the status line - start", lambda a: [a.first_byte]),
    "ttft": ("read with the first non-empty output_text.delta - start", lambda a: a.deltas[:1]),
    "itl": (
        "delta - delta before it, all gaps of all requests; in one read: 0",
        lambda a: [later - earlier for earlier, later in pairwise(a.deltas)],
    ),
    "tpot": ("(e2e - ttft) / (n - 1), n = usage.output_tokens", TimedAnswer.tpot),
    "e2e": ("read with the terminal event - start", lambda a: [a.end]),
}


class _RecordedSocket(io.BufferedReader):
    """A recording in place of a socket. It stays open when `HTTPResponse` closes it, for its position."""

    def makefile(self, mode: str) -> "_RecordedSocket":
        return self

    def close(self) -> None:
        pass


def parse(recording: Recording) -> TimedAnswer:
    """Return the answer of one recording; any failure becomes its `error`."""
    answer = TimedAnswer(error=recording.error)
    if recording.reads:
        answer.first_byte = recording.reads[0][0] - recording.start
    if not answer.error:
        try:
            _read(recording, answer)
        except (http.client.HTTPException, ValueError) as error:
            answer.error = f"unreadable answer: {error!r}"
    if answer.deltas and not answer.tokens:
        answer.tokens, answer.counted = len(answer.deltas), True
    return answer


def _read(recording: Recording, answer: TimedAnswer) -> None:
    """Read the frames of a recording into the answer."""
    recorded = _RecordedSocket(io.BytesIO(b"".join(data for _, data in recording.reads)))
    response = http.client.HTTPResponse(recorded)  # type: ignore[arg-type]  # it calls only the socket's makefile
    try:
        response.begin()
        if response.status != 200:
            answer.error = f"HTTP {response.status}: {response.read().decode(errors='replace')}"
            return
        for time, data in frames(_timed_lines(response, recorded, recording)):
            if data != "[DONE]":
                _apply_event(answer, time - recording.start, json.loads(data))
    except http.client.HTTPException:
        if not recording.dropped:  # a response that we dropped may end anywhere
            raise
    if not answer.error and answer.end is None and not recording.dropped:
        answer.error = "the stream ended without a terminal event"


def _timed_lines(
    response: http.client.HTTPResponse, recorded: _RecordedSocket, recording: Recording
) -> Iterator[tuple[float, bytes]]:
    """Yield each line with the time of the read that completed it."""
    ends = list(accumulate(len(data) for _, data in recording.reads))
    while line := response.readline():
        yield recording.reads[bisect_left(ends, recorded.tell())][0], line


def frames(lines: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, str]]:
    """Yield (time, data) of each SSE frame. Its time is that of the blank line, after which a client may act.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    data: list[str] = []
    for time, raw in lines:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield time, "\n".join(data)
            data = []


def _apply_event(answer: TimedAnswer, time: float, event: dict[str, Any]) -> None:
    """Add one event to the answer."""
    kind = event.get("type")
    if kind == "response.output_text.delta" and event.get("delta"):
        answer.deltas.append(time)
        answer.text += event["delta"]
    elif kind in _TERMINAL:
        answer.end = time
        usage = (event.get("response") or {}).get("usage") or {}
        answer.tokens, answer.input_tokens = usage.get("output_tokens") or 0, usage.get("input_tokens") or 0
        answer.cached_tokens = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
    if _is_error(event):
        answer.error = answer.error or json.dumps(event)


def _is_error(event: dict[str, Any]) -> bool:
    # llama-server sends `data: {"error": ...}` without a type when it fails.
    kind = event.get("type")
    return kind in {"error", "response.failed"} or (kind is None and "error" in event)
