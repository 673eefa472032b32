"""From recordings to figures: what each answer says, formulas, percentiles, the table and the object.

The standard library's own `HTTPResponse` reads the recording, so chunks may be cut anywhere. Servers differ
in their frames: `event:`, `sequence_number`, `usage` and `[DONE]` may be missing; only `data.type` counts.
"""

import http.client
import io
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import ceil, floor
from typing import Any

from client import Recording

PERCENTS = (50, 90, 99)
_TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


@dataclass(slots=True)
class Answer:
    """One request, understood. Times are seconds since its start; `tokens` is `usage.output_tokens`.

    Without `usage` the tokens are the text deltas, counted (`counted`).
    """

    first_byte: float | None = None
    deltas: list[float] = field(default_factory=list)
    end: float | None = None
    tokens: int = 0
    counted: bool = False
    error: str = ""

    def tpot(self) -> Iterator[float]:
        if self.deltas and self.end is not None and self.tokens > 1:
            yield (self.end - self.deltas[0]) / (self.tokens - 1)


# name -> the formula in words (tools share names, not formulas); the samples of one answer, in seconds.
MEASURES: dict[str, tuple[str, Callable[[Answer], Iterable[float | None]]]] = {
    "first_byte": ("read with the first byte of the status line - start", lambda a: [a.first_byte]),
    "ttft": ("read with the first non-empty output_text.delta - start", lambda a: a.deltas[:1]),
    "itl": (
        "delta - delta before it, all gaps of all requests; in one read: 0",
        lambda a: [later - earlier for earlier, later in pairwise(a.deltas)],
    ),
    "tpot": ("(e2e - ttft) / (n - 1), n = usage.output_tokens", Answer.tpot),
    "e2e": ("read with the terminal event - start", lambda a: [a.end]),
}


class _Tape(io.BufferedReader):
    """A recording in a socket's place. Outlives `HTTPResponse`'s closing it, to be asked for its position."""

    def makefile(self, mode: str) -> "_Tape":
        return self

    def close(self) -> None:
        pass


def understand(recording: Recording) -> Answer:
    """The figures of one recording; whatever is wrong with it ends up in `error`."""
    answer = Answer(error=recording.error)
    if recording.reads:
        answer.first_byte = recording.reads[0][0] - recording.start
    if not answer.error:
        try:
            _read(recording, answer)
        except (http.client.HTTPException, ValueError) as error:
            answer.error = f"unreadable answer: {error!r}"
    return answer


def _read(recording: Recording, answer: Answer) -> None:
    tape = _Tape(io.BytesIO(b"".join(data for _, data in recording.reads)))
    response = http.client.HTTPResponse(tape)  # type: ignore[arg-type]  # it asks a socket for makefile only
    response.begin()
    if response.status != 200:
        answer.error = f"HTTP {response.status}: {response.read().decode(errors='replace')}"
        return
    for time, data in frames(_timed_lines(response, tape, recording)):
        if data != "[DONE]":
            _take(answer, time - recording.start, json.loads(data))
    if not answer.error and answer.end is None:
        answer.error = "the stream ended without a terminal event"
    if answer.deltas and not answer.tokens:
        answer.tokens, answer.counted = len(answer.deltas), True


def _timed_lines(
    response: http.client.HTTPResponse, tape: _Tape, recording: Recording
) -> Iterator[tuple[float, bytes]]:
    ends = list(accumulate(len(data) for _, data in recording.reads))
    while line := response.readline():
        yield recording.reads[bisect_left(ends, tape.tell())][0], line


def frames(lines: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, str]]:
    """(time, data) of each SSE frame; its time is that of the blank line, on which a client may act.

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


def _take(answer: Answer, time: float, event: dict[str, Any]) -> None:
    kind = event.get("type")
    if kind == "response.output_text.delta" and event.get("delta"):
        answer.deltas.append(time)
    elif kind in _TERMINAL:
        answer.end = time
        answer.tokens = ((event.get("response") or {}).get("usage") or {}).get("output_tokens") or 0
    # llama-server sends `data: {"error": ...}` without any type when it breaks.
    if kind in {"error", "response.failed"} or (kind is None and "error" in event):
        answer.error = answer.error or json.dumps(event)


def percentile(values: list[float], percent: float) -> float | None:
    """By linear interpolation between the two nearest ranks, as numpy's default does. None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    rank = (len(ranked) - 1) * percent / 100
    low, high = ranked[floor(rank)], ranked[ceil(rank)]
    return low + (high - low) * (rank - floor(rank))


def summarize(answers: list[Answer], wall: float) -> dict[str, Any]:
    """All figures of a run, for JSON; keys say their unit, `wall` is seconds. Failures are only counted."""
    good = [answer for answer in answers if not answer.error]
    tokens = sum(answer.tokens for answer in good)
    return {
        "ok": len(good),
        "errors": len(answers) - len(good),
        "first_error": next((answer.error for answer in answers if answer.error), None),
        "wall_s": round(wall, 4),
        "output_tokens": tokens,
        "output_tokens_are_deltas": any(answer.counted for answer in good),
        "output_tokens_per_s": _rate(tokens, wall),
        "output_tokens_per_s_per_stream": _rate(tokens, sum(answer.end or 0.0 for answer in good)),
        **{
            f"{name}_ms": _spread([1000 * v for answer in good for v in samples(answer) if v is not None])
            for name, (_, samples) in MEASURES.items()
        },
    }


def _rate(tokens: int, seconds: float) -> float | None:
    return round(tokens / seconds, 3) if seconds else None


def _spread(values: list[float]) -> dict[str, float | None]:
    points = {f"p{percent}": percentile(values, percent) for percent in PERCENTS}
    return {"n": len(values)} | {k: None if v is None else round(v, 3) for k, v in points.items()}


def table(figures: dict[str, Any]) -> str:
    """The figures for people, in milliseconds; each formula stands beside its name."""
    lines = [f"{'ms':<10} {'n':>6} {'p50':>10} {'p90':>10} {'p99':>10}  formula"]
    for name, (formula, _) in MEASURES.items():
        spread = figures[f"{name}_ms"]
        cells = " ".join(f"{_cell(spread[f'p{percent}']):>10}" for percent in PERCENTS)
        lines.append(f"{name:<10} {spread['n']:>6} {cells}  {formula}")
    counted = "text deltas, counted (no usage)" if figures["output_tokens_are_deltas"] else "sum(n)"
    overall, stream = figures["output_tokens_per_s"], figures["output_tokens_per_s_per_stream"]
    lines += [
        "",
        f"{figures['output_tokens']:>10} output tokens               {counted}",
        f"{_cell(overall):>10} output tokens/s overall     sum(n) / wall time",
        f"{_cell(stream):>10} output tokens/s per stream  sum(n) / sum(e2e)",
        f"{_cell(figures['wall_s']):>10} s wall time                 first start to last read, warm-up apart",
        f"{figures['errors']:>10} errors                      {figures['ok']} requests went well",
    ]
    return "\n".join(lines + [f"first error: {figures['first_error']}"] * bool(figures["errors"]))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
