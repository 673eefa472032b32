"""Play the rounds of a load on the targets in turn, and collect their records."""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from load import Lengths
from load.progress import Expected, ProgressLine
from load.sweep import Sweep
from load.trace import read_trace
from measures import Group, Objectives
from processes import ProcessMeter
from record import Record
from scenarios import SCENARIOS, Groups, Size
from scenarios.loads import Opened, Replayed, SoakLoad, Swept, Timed
from target import Target
from texts import Texts

REPLAYED = {"single", "concurrent"}
"""Scenarios that repeat their texts in every run."""
PAUSE_SECONDS = 0.3
"""Seconds before a round, in which work left over from the last round ends on either server."""
SWEEP_OBJECTIVES = "ttft=2s,itl=100ms"
"""Objectives of a sweep without --slo: a reader's patience, and a fast reader's speed."""


@dataclass(slots=True, frozen=True)
class PlannedPart:
    """One round on one target: its name, its function, and the requests or seconds that it is expected to take."""

    name: str
    play: Callable[[Target, Texts, Size], Groups]
    expected: Expected


def planned_part(args: argparse.Namespace) -> PlannedPart:
    """Return the part that the flags ask for. Raises ValueError if they exclude each other."""
    _check(args)
    opened = Opened(args.rate, args.arrivals, args.max_concurrency, args.duration) if args.rate else None
    if args.sweep:
        return PlannedPart(
            "sweep", Swept(sweep(args), args.arrivals, args.max_concurrency, args.duration).play, Expected()
        )
    if args.replay:
        trace = read_trace(args.replay, args.speed)
        return PlannedPart("replay", Replayed(trace, args.max_concurrency).play, Expected(requests=len(trace)))
    if args.soak:
        return PlannedPart("soak", SoakLoad(args.soak, opened).play, Expected(seconds=args.soak))
    if opened:
        return PlannedPart("open", opened.play, Expected(None if args.duration else args.requests, args.duration))
    if args.duration:
        return PlannedPart("timed", Timed(args.duration).play, Expected(seconds=args.duration))
    requests = args.requests if args.scenario == "single" else None
    return PlannedPart(args.scenario, SCENARIOS[args.scenario], Expected(requests=requests))


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError if one flag has no effect beside another."""
    loads = [name for name in ("sweep", "replay", "soak") if getattr(args, name)]
    if len(loads) > 1 or (args.scenario != "single" and (loads or args.rate or args.duration)):
        raise ValueError(
            "--scenario, --sweep, --replay and --soak exclude each other, --rate and --duration --scenario"
        )
    for is_wrong, message in _CONFLICTS:
        if is_wrong(args):
            raise ValueError(message)


def _sweeps_rates(args: argparse.Namespace) -> bool:
    return bool(args.sweep) and args.sweep[0] == "rate"


_CONFLICTS: tuple[tuple[Callable[[argparse.Namespace], Any], str], ...] = (
    (lambda args: args.duration and (args.replay or args.soak), "--duration is for a loop or a sweep: leave it out"),
    (
        lambda args: args.rate and (args.replay or (args.sweep and not _sweeps_rates(args))),
        "--rate is for an open loop: leave it out",
    ),
    (
        lambda args: args.rate and _sweeps_rates(args) and args.sweep[1],
        "--rate is the first level of a sweep without levels: leave it out",
    ),
    (
        lambda args: args.max_concurrency and not (args.rate or args.replay or _sweeps_rates(args)),
        "--max-concurrency needs --rate R",
    ),
    (lambda args: args.speed != 1 and not args.replay, "--speed needs --replay FILE"),
    (lambda args: args.vs_pid and not args.vs, "--vs-pid needs --vs URL"),
)
"""Combinations of flags that are wrong, and the message about each."""


def sweep(args: argparse.Namespace) -> Sweep:
    """Return the sweep that the flags ask for."""
    kind, levels = args.sweep
    first = args.rate if kind == "rate" and args.rate else 1.0
    return Sweep(kind, args.slo or Objectives.parse(SWEEP_OBJECTIVES), args.attainment, levels, first)


class Played(NamedTuple):
    """Groups of each target over all rounds. After an interrupt, these are the complete requests of loads, and the
    complete rounds of scenarios that compare several requests."""

    groups: list[Groups]
    interrupted: bool


def play(targets: list[Target], meters: list[ProcessMeter | None], args: argparse.Namespace) -> Played:
    """Play all rounds, or as many as there are before an interrupt."""
    part = planned_part(args)
    lengths = Lengths(args.prompt_words, args.tokens, args.input_tokens, args.output_tokens)
    size = Size(
        args.concurrency, args.requests, args.tokens, args.prompt_words, lengths, targets[0].restarts, args.idle
    )
    salt = "" if part.name in REPLAYED else time.time_ns()
    results: list[Groups] = [defaultdict(Group) for _ in targets]
    progress = None if args.quiet else ProgressLine(args.rounds * len(targets), part.expected)
    try:
        for target in targets:
            _warm_up(target, Texts(f"{args.seed} warm-up {salt}"), size, args.warmup)
        begin = time.perf_counter()
        for number, (index, target) in product(range(args.rounds), enumerate(targets)):
            time.sleep(PAUSE_SECONDS)
            name = f"round {number + 1} of {args.rounds}, {target.url}"
            with Watch(progress, meters[index]).watching(name, target):
                played = part.play(target, Texts(f"{args.seed} {number} {salt}"), size)
            _collect(results[index], played, index, number, begin)
            if target.client().interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        return Played([_not_empty(groups) for groups in results], interrupted=True)
    finally:
        if progress:
            progress.close()
    return Played(results, interrupted=False)


def _warm_up(target: Target, texts: Texts, size: Size, requests: int) -> None:
    target.client().play([size.lengths.draw(target, texts) for _ in range(requests)], 1)


def _collect(result: Groups, played: Groups, target: int, number: int, begin: float) -> None:
    """Add the groups of one round on a target to its groups of the run."""
    for name, group in played.items():
        set_places(group.records, target, number, name, begin)
        result[name] += group


def _not_empty(groups: Groups) -> Groups:
    return {name: group for name, group in groups.items() if group.records}


class Watch:
    """Progress and process of one part."""

    def __init__(self, progress: ProgressLine | None, meter: ProcessMeter | None) -> None:
        self._watched = [each for each in (progress, meter) if each]
        self._progress = progress
        self._meter = meter

    @contextmanager
    def watching(self, name: str, target: Target) -> Iterator[None]:
        """Watch a target's client during one part."""
        if self._progress:
            self._progress.begin(name, target.client())
        if self._meter:
            self._meter.begin()
        target.client().on_turn = self._tick
        yield
        if self._meter:
            self._meter.end()
        if self._progress:
            self._progress.end()

    def _tick(self) -> None:
        for each in self._watched:
            each.tick()


def set_places(records: list[Record], target: int, number: int, group: str, begin: float) -> None:
    """Set each record's set_places in the run; its times of the clock become times since the begin."""
    for record in records:
        record.target, record.round, record.group = target, number, group
        record.start -= begin
        if record.planned is not None:
            record.planned -= begin
