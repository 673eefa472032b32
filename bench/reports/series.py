"""The records of one server as a series of marks: its name, its color and its samples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from measures import percentile, samples
from record import Record

from reports.scales import number

NO_BREAK = "\N{NO-BREAK SPACE}"
UNITS = {"concurrency": "at a time", "rate": "requests/s"}
"""Units of the levels of a sweep."""
COLORS = ("a", "b")
"""Classes of the style sheet: of the server under test, and of the one it is compared with."""


@dataclass(frozen=True, slots=True)
class Series:
    """Records of one server that are drawn alike."""

    name: str
    color: str
    records: Sequence[Record]
    _sorted: dict[str, list[float]] = field(default_factory=dict, init=False, compare=False)

    @property
    def good(self) -> list[Record]:
        """Return the records of answered requests."""
        return [record for record in self.records if not record.error]

    def samples(self, measure: str) -> list[float]:
        """Return the samples of a measure in ms, the smallest first. A long run has millions: sort them once."""
        if measure not in self._sorted:
            self._sorted[measure] = sorted(samples(measure, self.good))
        return self._sorted[measure]


def series(targets: Sequence[dict[str, Any]], records: Iterable[Record], group: str | None = None) -> list[Series]:
    """Return a series for each server that has records of the group; without a group, of all groups."""
    wanted = [record for record in records if group is None or record.group == group]
    found = [
        Series(
            short(target["url"]), COLORS[index % len(COLORS)], [record for record in wanted if record.target == index]
        )
        for index, target in enumerate(targets)
    ]
    return [each for each in found if each.records]


def short(url: str) -> str:
    """Return a URL without its scheme, for labels."""
    return url.partition("://")[2] or url


def shortened(name: str, most: int) -> str:
    """Return a name of at most that many characters: a longer one without its middle."""
    if len(name) <= most:
        return name
    end = max(1, (most - 1) // 2)
    return f"{name[: max(1, most - 1 - end)]}\N{HORIZONTAL ELLIPSIS}{name[-end:]}"


def summary(values: Sequence[float], unit: str = "ms") -> str:
    """Return the median and the tail of values for a legend."""
    if not values:
        return "no value"
    tail = 99 if len(values) >= 100 else 90 if len(values) >= 10 else None
    parts = [f"p50 {number(percentile(values, 50))}"]
    parts += [f"p{tail} {number(percentile(values, tail))}"] if tail else []
    parts += [f"max {number(max(values))} {unit}", f"n {len(values):,}"]
    return " · ".join(part.replace(" ", NO_BREAK) for part in parts)


def legends(found: Iterable[Series], values: Callable[[Series], Sequence[float]]) -> list[tuple[str, str, str]]:
    """Return color, name and numbers of each series."""
    return [(each.color, each.name, summary(values(each))) for each in found]
