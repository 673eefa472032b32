"""Loads of equal requests by flags: for a time, in an open loop, in a sweep, from a trace, or as a soak."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from load import arrivals, closed_loop, open_loop, timed_loop, until_interrupted
from load.sweep import Sweep
from load.trace import Arrival
from measures import Group
from target import Target
from texts import Texts

from scenarios.groups import Groups, Size, group

SLICES = 10
"""Parts of a soak, so that drift shows: the last one is compared with the first."""


@dataclass(slots=True, frozen=True)
class Timed:
    """A closed loop for a number of seconds."""

    seconds: float

    def play(self, target: Target, texts: Texts, size: Size) -> Groups:
        """Send requests, `--concurrency` at a time."""
        draw = size.lengths.draw
        return {"all": group(timed_loop(target.client(), lambda: draw(target, texts), size.concurrency, self.seconds))}


@dataclass(slots=True, frozen=True)
class Opened:
    """An open loop of `--requests`, or for a number of seconds."""

    rate: float
    arrivals: str = "poisson"
    limit: int | None = None
    seconds: float | None = None

    def play(self, target: Target, texts: Texts, size: Size) -> Groups:
        """Start requests at planned times."""
        count = size.requests if self.seconds is None else max(1, round(self.rate * self.seconds))
        return {"all": self.run(target, texts, size, count)}

    def run(self, target: Target, texts: Texts, size: Size, count: int) -> Group:
        """Return the group of that many requests."""
        requests = [size.lengths.draw(target, texts) for _ in range(count)]
        times = arrivals(self.arrivals, self.rate, count, texts.rng)
        return group(open_loop(target.client(), requests, times, self.limit))


@dataclass(slots=True, frozen=True)
class Swept:
    """A sweep over levels of concurrency or rate."""

    sweep: Sweep
    arrivals: str = "poisson"
    limit: int | None = None
    seconds: float | None = None
    """Seconds of each level; None: `--requests` of them."""

    def play(self, target: Target, texts: Texts, size: Size) -> Groups:
        """Measure one level after another. An interrupt leaves out the level that it cuts, which proves nothing."""
        groups: Groups = {}

        def measure(level: float) -> Group:
            found = self._level(level, target, texts, size)
            if target.client().interrupted:
                raise KeyboardInterrupt
            return found

        with until_interrupted(target.client()):
            self.sweep.run(measure, groups)
        return groups

    def _level(self, level: float, target: Target, texts: Texts, size: Size) -> Group:
        if self.sweep.kind == "rate":
            opened = Opened(level, self.arrivals, self.limit, self.seconds)
            return opened.play(target, texts, size)["all"]
        if self.seconds is not None:
            return Timed(self.seconds).play(target, texts, replace(size, concurrency=int(level)))["all"]
        count = max(size.requests, 2 * int(level))
        requests = [size.lengths.draw(target, texts) for _ in range(count)]
        return group(closed_loop(target.client(), requests, int(level)))


@dataclass(slots=True, frozen=True)
class Replayed:
    """A recorded trace."""

    trace: Sequence[Arrival]
    limit: int | None = None

    def play(self, target: Target, texts: Texts, size: Size) -> Groups:
        """Start the requests of the trace at its times. Texts are new: only their lengths are the trace's."""
        requests = [
            target.body_request(arrival.body | {"stream": True})
            if arrival.body is not None
            else size.lengths.request(target, texts, arrival.input_tokens or 1, arrival.output_tokens or 1)
            for arrival in self.trace
        ]
        times = [arrival.at for arrival in self.trace]
        return {"all": group(open_loop(target.client(), requests, times, self.limit))}


@dataclass(slots=True, frozen=True)
class SoakLoad:
    """A long load in parts, closed or open."""

    seconds: float
    opened: Opened | None = None

    def play(self, target: Target, texts: Texts, size: Size) -> Groups:
        """Run the parts one after another; each is parsed before the next, so that memory does not grow."""
        part = self.seconds / SLICES
        groups: Groups = {}
        with until_interrupted(target.client()):
            for number in range(SLICES):
                name = f"from {number * part:g} s"
                if self.opened is None:
                    groups |= {name: Timed(part).play(target, texts, size)["all"]}
                else:
                    count = max(1, round(self.opened.rate * part))
                    groups |= {name: self.opened.run(target, texts, size, count)}
        return groups
