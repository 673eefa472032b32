"""Levels of load as marks: a line through the medians, and a bar from each to its tail."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reports.scales import Scale, number
from reports.svg import Plot, dot, element, line


class Level(NamedTuple):
    """One level: its place on the x axis, its median, and its tail with the name of the percentile."""

    at: float
    middle: float
    top: float
    tail: str
    name: str
    unit: str


def draw(plot: Plot, found: Sequence[Level], x: Scale, y: Scale, color: str) -> None:
    """Draw the levels of one server."""
    if len(found) > 1:
        plot.add(line([(x(level.at), y(level.middle)) for level in found], color))
    for level in found:
        about = f"{level.name}: {number(level.middle)} {level.unit}"
        if level.tail:
            about += f", {level.tail} {number(level.top)} {level.unit}"
            bar = f"M{x(level.at):g} {y(level.middle):g}V{y(level.top):g}m-3 0h6"
            plot.add(element("path", d=bar, class_=f"whisker {color}"))
        plot.add(dot(x(level.at), y(level.middle), color, about, 4))


def heights(found: Iterable[Level]) -> list[float]:
    """Return the medians and the tails of levels, which the y axis has to contain."""
    return [value for level in found for value in (level.middle, level.top)]


def tail(row: Mapping[str, Any], points: Iterable[str]) -> str:
    """Return the name of the first point that the sample can carry."""
    return next((name for name in points if row.get(name) is not None), "p50")


def tails(names: Iterable[str]) -> str:
    """Return the names of the tails that are drawn, for a caption."""
    return " or ".join(dict.fromkeys(names))
