"""TTFT against the rate of requests: one point for each level of load that a run had."""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from reports.captioned_plot import NARROW, CaptionedPlot
from reports.plots.levels import Level, draw, heights, tail, tails
from reports.scales import fitting, linear, number
from reports.series import COLORS, short
from reports.svg import Plot

TAILS = ("p99", "p95", "p90", "max")
"""Upper ends of the bars: the first that the sample can carry."""


def ttft_against_rate(targets: Sequence[dict[str, Any]]) -> CaptionedPlot | None:
    """Return TTFT against the rate of answered requests; None unless there are two rates."""
    rows = [_levels(target) for target in targets]
    if max((len({level.at for level in found}) for found in rows), default=0) < 2:
        return None
    plot = Plot(NARROW, 250)
    levels = [*chain.from_iterable(rows)]
    x = linear(0.0, 1.06 * max(level.at for level in levels), plot.left, plot.right)
    y = fitting(heights(levels), plot.bottom, plot.top)
    plot.axes(x, y, "answered requests/s", "TTFT, ms")
    for color, found in zip(COLORS, rows, strict=False):
        draw(plot, found, x, y, color)
    legend = [(COLORS[index], short(target["url"]), _ends(rows[index])) for index, target in enumerate(targets)]
    caption = f"Points: p50. Bars: to {tails(level.tail for level in levels)}."
    return CaptionedPlot(
        "ttft-against-rate", "TTFT against the rate", [plot.markup("TTFT against the rate")], legend, caption
    )


def _levels(target: dict[str, Any]) -> list[Level]:
    """Return the levels of load, in ascending order."""
    groups = sorted(target["groups"].items(), key=_order)
    return [level for group in groups if (level := _level(*group)) is not None]


def _order(group: tuple[str, dict[str, Any]]) -> float:
    """Return the level in a group's name, such as `4 at a time`: a sweep does not play its levels in their order."""
    found = re.search(r"\d+(\.\d+)?", group[0])
    return float(found[0]) if found else 0.0


def _level(name: str, figures: dict[str, Any]) -> Level | None:
    found, rate = figures.get("ttft_ms") or {}, figures.get("requests_per_s")
    if not rate or found.get("p50") is None:
        return None
    point = tail(found, TAILS)
    return Level(rate, found["p50"], found[point], point, f"{name}, {number(rate)} requests/s", "ms")


def _ends(found: Sequence[Level]) -> str:
    """Return the values at the lowest and the highest rate."""
    if not found:
        return "no answers"
    values = (f"{number(level.middle)} ms at {number(level.at)}/s" for level in (found[0], found[-1]))
    return " · ".join(values)
