"""A sweep: levels of concurrency or rate that rise until the objectives break, and the knee between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from measures import Group, Objectives

MAX_LEVELS = 12
"""Doublings that are tried: 2,048 at a time."""
REFINEMENTS = 3
"""Levels that are tried between the last one that meets the objectives and the first that does not."""


@dataclass(slots=True, frozen=True)
class Sweep:
    """Kind of the levels (`concurrency` or `rate`), the objectives, and the share of requests that must meet them.

    Without `levels`, they double from `first`, and the knee is then searched between the last two.
    """

    kind: str
    objectives: Objectives
    attainment: float = 0.9
    levels: Sequence[float] = ()
    first: float = 1.0

    def run(self, measure: Callable[[float], Group], groups: dict[str, Group]) -> None:
        """Measure levels and add their groups by name."""

        def holds(level: float) -> bool:
            groups[self.name(level)] = group = measure(level)
            return self.holds(group)

        if self.levels:
            for level in self.levels:
                holds(level)
        else:
            self._search(holds)

    def name(self, level: float) -> str:
        """Return the name of a level's group."""
        return f"{self.kind} {level:g}"

    def holds(self, group: Group) -> bool:
        """True if enough requests meet the objectives."""
        return (self.objectives.share(group.records) or 0.0) >= self.attainment

    def entries(self, groups: dict[str, Group]) -> list[dict[str, Any]]:
        """Return the levels in their order, with the share that met the objectives."""
        found = [
            {
                "kind": self.kind,
                "level": float(name.rpartition(" ")[2]),
                "group": name,
                "met": round(self.objectives.share(group.records) or 0.0, 4),
                "holds": self.holds(group),
            }
            for name, group in groups.items()
        ]
        return sorted(found, key=lambda entry: float(str(entry["level"])))

    def knee(self, groups: dict[str, Group]) -> float | None:
        """Return the highest level such that it and all levels below it meet the objectives; None if none does."""
        highest = None
        for entry in self.entries(groups):
            if not entry["holds"]:
                break
            highest = float(entry["level"])
        return highest

    def _search(self, holds: Callable[[float], bool]) -> None:
        level, good = self.first, 0.0
        for _ in range(MAX_LEVELS):
            if not holds(level):
                break
            good, level = level, 2 * level
        else:
            return
        bad = level
        for _ in range(REFINEMENTS):
            middle = (good + bad) / 2
            middle = float(int(middle)) if self.kind == "concurrency" else round(middle, 3)
            if not good < middle < bad:
                return
            good, bad = (middle, bad) if holds(middle) else (good, middle)
