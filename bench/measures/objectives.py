"""Objectives for one request (`--slo ttft=200ms,itl=30ms`), and the share of requests that meet them: goodput.

As in DistServe (https://arxiv.org/abs/2401.09670) a request is good if it meets all objectives; a failed one is not.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from record import Record

from measures.formulas import MEASURES, PER_REQUEST
from measures.percentiles import percentile

NAMES = ("first_byte", "ttft", "itl", "tpot", "e2e", "normalised")
"""Measures that may have an objective."""
_UNITS = {"us": 1_000_000, "ms": 1000, "s": 1, "": 1000}
_ONE = re.compile(r"(\w+)=([0-9.]+)(us|ms|s|)")


@dataclass(slots=True, frozen=True)
class Objectives:
    """Limits in seconds by measure."""

    limits: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> "Objectives":
        """Return the objectives of a text such as `ttft=200ms,itl=30ms`. Raises ValueError."""
        limits = {}
        for part in text.split(","):
            found = _ONE.fullmatch(part.strip())
            if not found or found[1] not in NAMES:
                raise ValueError(f"{part!r} is not MEASURE=TIME, such as ttft=200ms; measures: {', '.join(NAMES)}")
            limits[found[1]] = float(found[2]) / _UNITS[found[3]]
        return cls(limits)

    def met(self, record: Record) -> bool:
        """True if a request meets all objectives. Nine of ten of its gaps must meet that for `itl`.

        A measure that a request does not have, such as the gaps of one token, is met.
        """
        if record.error:
            return False
        for name, limit in self.limits.items():
            value = percentile([*MEASURES[name][1](record)], PER_REQUEST)
            if value is not None and value > limit:
                return False
        return True

    def share(self, records: Iterable[Record]) -> float | None:
        """Return the share of requests that meet the objectives; None without requests."""
        met = [self.met(record) for record in records]
        return sum(met) / len(met) if met else None

    def __str__(self) -> str:
        return ", ".join(f"{name} <= {1000 * limit:g} ms" for name, limit in self.limits.items())
