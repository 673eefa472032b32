"""Loads: when requests start, and how long they are."""

from load.arrivals import ARRIVALS, arrivals
from load.lengths import FORMS, Length, Lengths
from load.loops import closed_loop, open_loop, timed_loop, until_interrupted

__all__ = [
    "ARRIVALS",
    "FORMS",
    "Length",
    "Lengths",
    "arrivals",
    "closed_loop",
    "open_loop",
    "timed_loop",
    "until_interrupted",
]
