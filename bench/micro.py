"""Cost of the serving path alone: each part of it, and whole streams of a model that ticks.

    python bench/micro.py --rounds 5

The server runs in this process, on one core; the bench's client reads from other cores. Except for the rates, figures
are CPU time, which other programs on the machine hardly change. It needs an environment with responsed.

The table is for people; the very last line of stdout is one JSON object for scripts. The exit status is 1 if a median
misses its goal.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

from environment import OtherWorkWatch
from hotpath import parts, ticks_of, use_one_core
from wording import counted

MICROSECONDS = 1e6
TOTAL_RATE = 1000
"""Tokens per second of all streams together."""
STREAMS = (1, 16, 256)
"""Numbers of streams."""
LOAD = (64, 100.0)
"""Streams, and tokens per second of each, that one core must carry."""
EVENT_GOAL, ENCODE_GOAL, LOAD_GOAL = 120.0, 1.0, 0.98
"""Microseconds of an event, microseconds of the encoding of a delta, share of the rate of `LOAD`."""
SECONDS = 2.0
"""Seconds of a round of streams."""


@dataclass(slots=True, frozen=True)
class CostFigure:
    """A figure with its value in each round. `goal`: the median that is not to be exceeded, or reached at least."""

    name: str
    unit: str
    values: list[float]
    goal: float | None = None
    at_least: bool = False

    @property
    def missed(self) -> bool:
        """True if the median misses the goal."""
        if self.goal is None:
            return False
        return median(self.values) < self.goal if self.at_least else median(self.values) > self.goal

    def line(self) -> str:
        """Return the row for people."""
        sign = ">=" if self.at_least else "<="
        goal = "" if self.goal is None else f"{sign} {self.goal:g}{', missed' * self.missed}"
        points = " ".join(f"{point:>10.2f}" for point in (min(self.values), median(self.values), max(self.values)))
        return f"{self.name:<52} {self.unit:<14} {points}  {goal}"


def part_rows(rounds: int) -> Iterator[CostFigure]:
    """Yield the figures of single parts."""
    handed = [parts.hand_over() for _ in range(rounds)]
    yield CostFigure("encode one delta", "us", [parts.encode(1) for _ in range(rounds)], ENCODE_GOAL)
    yield CostFigure("encode 16 deltas together", "us/delta", [parts.encode(16) for _ in range(rounds)], ENCODE_GOAL)
    yield CostFigure("hand over one output: inference thread", "us", [each for each, _ in handed])
    yield CostFigure("hand over one output: event loop", "us", [each for _, each in handed])
    yield CostFigure("one write to a socket", "us", [parts.write() for _ in range(rounds)])


def stream_rows(streams: int, rate: float, rounds: int, goal: float | None = None) -> Iterator[CostFigure]:
    """Yield the figures of streams of `rate` tokens per second each. `goal`: share of the rate to reach."""
    steps = max(round(SECONDS * rate), 4)
    ticks = ticks_of(streams, rate, steps * rounds)
    ends = ticks[::steps]
    name = f"{counted(streams, 'stream')} of {rate:.3g} tokens/s"
    if streams == 1:
        events = [MICROSECONDS * (after.loop - before.loop) for before, after in pairwise(ticks)]
        rows = [median(events[first : first + steps]) for first in range(0, len(events), steps)]
        yield CostFigure(f"{name}: hand-over to socket, p50", "us/event", rows, EVENT_GOAL)
    costs = {"event loop": [], "inference thread": []}  # type: dict[str, list[float]]
    reached = []
    for before, after in pairwise(ends):
        per_token = MICROSECONDS / steps / streams
        costs["event loop"].append(per_token * (after.loop - before.loop))
        costs["inference thread"].append(per_token * (after.inference - before.inference))
        reached.append(streams * steps / (after.clock - before.clock))
    for thread, values in costs.items():
        yield CostFigure(f"{name}: {thread}", "us/token", values)
    both = [loop + inference for loop, inference in zip(*costs.values(), strict=True)]
    yield CostFigure(f"{name}: needed of one core", "%", [each * streams * rate / 1e4 for each in both])
    yield CostFigure(f"{name}: reached", "tokens/s", reached, goal and goal * streams * rate, at_least=True)


def rows_of(rounds: int) -> Iterator[CostFigure]:
    """Yield all figures."""
    yield from part_rows(rounds)
    for streams in STREAMS:
        yield from stream_rows(streams, TOTAL_RATE / streams, rounds)
    yield from stream_rows(*LOAD, rounds, LOAD_GOAL)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/micro.py", description="Measure the serving path without a model.")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each figure (default: %(default)s)")
    args = parser.parse_args(arguments)
    watch = OtherWorkWatch()
    use_one_core()
    print(f"{'CPU time on one core':<52} {'':<14} {'min':>10} {'median':>10} {'max':>10}  goal", flush=True)
    rows = []
    for row in rows_of(args.rounds):
        print(row.line(), flush=True)
        rows.append(row)
    load = watch.report()
    for sentence in load["busy"]:
        print(f"busy machine: {sentence}")
    print(json.dumps({"rounds": args.rounds, "load": load, "figures": [asdict(row) for row in rows]}))
    return int(any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
