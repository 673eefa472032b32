"""Times of one response by the server that made it and by the client that read it, and the offset between their clocks.

`Record.server_times` has two parts:

    {"server": {...},   `responsed.token_times` of the terminal response (server/docs/api.md, "Times of tokens")
     "client": {"start": seconds of CLOCK_MONOTONIC at the request's start,
                "numbers": sequence numbers of the events that were read,
                "times": seconds since `start` at which each was read,
                "parse": seconds that the client needed to parse each}}
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from record import Record

MOMENTS = ("decoding", "decoded", "sampled", "handed_over", "encoded", "written")
"""Times of a token by the server, in their order."""


def times_of(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the server's times and the client's."""
    assert record.server_times is not None, "only traced records are asked for"
    return record.server_times["server"], record.server_times["client"]


def arrival_of(client: dict[str, Any], number: int) -> int | None:
    """Return the index of the event with that number; None if it was not read."""
    index = bisect_right(client["numbers"], number) - 1
    return index if index >= 0 and client["numbers"][index] == number else None


@dataclass(frozen=True, slots=True)
class TimedStep:
    """The tokens of one step of the model, with their times in seconds on the server's clock."""

    tokens: int
    event: int
    """Sequence number of the last event that left with them."""
    decoding: float
    decoded: float
    sampled: float
    handed_over: float
    encoded: float
    written: float


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The client's clock minus the server's, in seconds, and the largest error of that."""

    offset: float
    error: float

    @property
    def name(self) -> str:
        """Return `shared` if both programs read one clock, as they do on one machine; else `aligned`."""
        return "aligned" if self.offset else "shared"


def steps_of(times: dict[str, Any]) -> list[TimedStep]:
    """Return the steps whose tokens left as frames of their own."""
    columns, steps = times["tokens"], list[TimedStep]()
    for index, event in enumerate(columns["event"]):
        moments = {name: columns[name][index] for name in MOMENTS}
        if event is None or None in moments.values():
            continue
        step = TimedStep(1, event, **{name: times["received"] + moment for name, moment in moments.items()})
        if steps and steps[-1].decoding == step.decoding:
            step = replace(step, tokens=steps.pop().tokens + 1)
        steps.append(step)
    return steps


def clock_of(records: Iterable[Record]) -> ClockOffset:
    """Return the offset between the clocks: no event is read before its frame was made, no request before it was sent.

    Zero is taken if it breaks neither rule.
    """
    least, most = -math.inf, math.inf
    for record in records:
        server, client = times_of(record)
        least = max(least, client["start"] - server["received"])  # the server's clock + offset >= the start
        for step in steps_of(server):
            if (arrival := arrival_of(client, step.event)) is not None:
                most = min(most, client["start"] + client["times"][arrival] - step.encoded)
    if not least <= most < math.inf:
        return ClockOffset(0.0, math.inf)
    return ClockOffset(0.0 if least <= 0 <= most else (least + most) / 2, (most - least) / 2)
