"""Parse a recording into a record: the times of its events, its usage, its error.

The standard library's `HTTPResponse` reads the recording, so chunks may be split anywhere. Servers differ in their
frames: `event:`, `sequence_number`, `usage` and `[DONE]` may be missing; only the data counts (`apis/`).
"""

import http.client
import io
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from time import perf_counter

from apis import apply_event
from client import Recording
from record import Record
from token_budget import ClientTimes

_CUT = (http.client.RemoteDisconnected, http.client.IncompleteRead)


class _RecordedSocket(io.BufferedReader):
    """A recording in place of a socket. It stays open when `HTTPResponse` closes it, for its position."""

    def makefile(self, mode: str) -> "_RecordedSocket":
        return self

    def close(self) -> None:
        pass


def parse(recording: Recording) -> Record:
    """Return the record of one recording; any failure becomes its `error`. Its `start` is the clock's."""
    record = Record(
        start=recording.start,
        planned=recording.planned,
        asked_tokens=recording.asked_tokens,
        error=recording.error,
        error_kind=recording.error_kind,
    )
    if recording.reads:
        record.first_byte = recording.reads[0][0] - recording.start
    if not record.error:
        try:
            _read(recording, record)
        except (http.client.HTTPException, ValueError) as error:
            record.error = f"unreadable answer: {error!r}"
            record.error_kind = "closed" if isinstance(error, _CUT) else "protocol"
    if record.deltas and not record.output_tokens:
        record.output_tokens, record.counted = len(record.deltas), True
    if recording.dropped and not record.status:
        record.status = "dropped"
    return record


def between(record: Record, begin: float, end: float) -> Record:
    """Return a copy with only the deltas whose gaps overlap that time, including gaps that cross its borders."""
    first = max(0, bisect_left(record.deltas, begin) - 1)
    return replace(record, deltas=record.deltas[first : bisect_left(record.deltas, end) + 1])


def _read(recording: Recording, record: Record) -> None:
    """Read the frames of a recording into the record."""
    recorded = _RecordedSocket(io.BytesIO(b"".join(data for _, data in recording.reads)))
    response = http.client.HTTPResponse(recorded)  # type: ignore[arg-type]  # it calls only the socket's makefile
    times = ClientTimes(recording.start)
    try:
        response.begin()
        if response.status != 200:
            record.error = f"HTTP {response.status}: {response.read().decode(errors='replace')}"
            record.error_kind = f"http {response.status}"
            return
        for time, data in frames(_timed_lines(response, recorded, recording)):
            if data != "[DONE]":
                began = perf_counter()
                event = json.loads(data)
                times.add(event, time - recording.start, perf_counter() - began)
                apply_event(record, time - recording.start, event)
        record.server_times = times.beside_server()
    except http.client.HTTPException:
        if not recording.dropped:  # a response that we dropped may end anywhere
            raise
    if record.end is None:
        _note_missing_end(recording, record)


def _note_missing_end(recording: Recording, record: Record) -> None:
    """Count an answer that has no end as failed, unless we dropped it."""
    if not record.error and not recording.dropped:
        record.error = "the stream ended without a terminal event"
        record.error_kind = "closed" if recording.cut else "protocol"


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
