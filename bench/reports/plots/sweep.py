"""The levels of a sweep: the share of requests that meet the objectives, TTFT and ITL, and the knee."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from math import inf
from typing import Any

from reports.captioned_plot import NARROW, CaptionedPlot
from reports.plots.levels import Level, draw, heights, tail, tails
from reports.scales import Scale, fitting, linear, number, whole_or_number
from reports.series import COLORS, UNITS, short
from reports.svg import CHARACTER, Plot, element, text

TAILS = ("p90", "max")
"""Upper ends of the bars. Nine of ten requests must meet the objectives by default."""
_OBJECTIVE = re.compile(r"(\w+) <= ([0-9.e+]+) ms")
_MEASURES = (("ttft", "TTFT"), ("itl", "ITL"))


def sweep(targets: Sequence[dict[str, Any]], entries: Sequence[dict[str, Any]]) -> list[CaptionedPlot]:
    """Return the plots of a sweep; none without one."""
    found = [[entry for entry in entries if entry["target"] == index] for index in range(len(targets))]
    if not any(found):
        return []
    measured = (_measure(targets, found, measure, name) for measure, name in _MEASURES)
    return [_attainment(targets, found), *filter(None, measured)]


def _attainment(targets: Sequence[dict[str, Any]], found: Sequence[Sequence[dict[str, Any]]]) -> CaptionedPlot:
    rows = [[_share(entry) for entry in entries] for entries in found]
    wanted = 100 * max(target["knee"]["attainment"] for target in targets)
    plot = Plot(NARROW, 250)
    x, y = _levels(rows, plot), linear(0.0, 108.0, plot.bottom, plot.top)
    plot.axes(x, y, _unit(targets), "requests within the objectives, %")
    for color, row in zip(COLORS, rows, strict=False):
        draw(plot, row, x, y, color)
    free_until = _limit(plot, y, wanted, f"wanted {wanted:g}%", is_least=True)
    _knees(plot, targets, x, free_until)
    legend = [(COLORS[i], short(target["url"]), knee_text(target["knee"])) for i, target in enumerate(targets)]
    caption = (
        f"The knee is the highest level at which {wanted:g}% of the requests meet {targets[0]['knee']['objectives']}."
    )
    drawing = plot.markup("Share of the requests that meet the objectives, by level")
    return CaptionedPlot("sweep-share", "Sweep: the knee", [drawing], legend, caption)


def _share(entry: dict[str, Any]) -> Level:
    share = 100 * entry["met"]
    return Level(entry["level"], share, share, "", entry["group"], "%")


def _measure(
    targets: Sequence[dict[str, Any]], found: Sequence[Sequence[dict[str, Any]]], measure: str, name: str
) -> CaptionedPlot | None:
    rows = [_rows(target, entries, f"{measure}_ms") for target, entries in zip(targets, found, strict=True)]
    if not any(rows):
        return None
    limit = dict(_OBJECTIVE.findall(targets[0]["knee"]["objectives"])).get(measure)
    plot = Plot(NARROW, 250)
    levels = [*chain.from_iterable(rows)]
    values = [*heights(levels), *([float(limit)] if limit else [])]
    x, y = _levels(rows, plot), fitting(values, plot.bottom, plot.top)
    plot.axes(x, y, _unit(targets), f"{name}, ms")
    for color, row in zip(COLORS, rows, strict=False):
        draw(plot, row, x, y, color)
    free_until = inf
    if limit:
        free_until = _limit(plot, y, float(limit), f"objective {float(limit):,g} ms", is_least=False)
    _knees(plot, targets, x, free_until)
    legend = [
        (COLORS[index], short(target["url"]), _at_knee(target["knee"], rows[index]))
        for index, target in enumerate(targets)
    ]
    caption = f"Points: p50. Bars: to {tails(level.tail for level in levels)}."
    return CaptionedPlot(f"sweep-{measure}", f"Sweep: {name}", [plot.markup(f"{name} by level")], legend, caption)


def _rows(target: dict[str, Any], entries: Sequence[dict[str, Any]], key: str) -> list[Level]:
    rows = []
    for entry in entries:
        row = target["groups"].get(entry["group"], {}).get(key) or {}
        if row.get("p50") is not None:
            point = tail(row, TAILS)
            rows.append(Level(entry["level"], row["p50"], row[point], point, entry["group"], "ms"))
    return rows


def _levels(rows: Sequence[Sequence[Level]], plot: Plot) -> Scale:
    levels = [level.at for row in rows for level in row]
    return replace(fitting(levels, plot.left, plot.right - 8), marked=tuple(sorted({*levels})))


def _unit(targets: Sequence[dict[str, Any]]) -> str:
    unit = UNITS[targets[0]["knee"]["kind"]]
    return unit if unit.startswith("requests") else f"requests {unit}"


def _limit(plot: Plot, y: Scale, value: float, label: str, is_least: bool) -> float:
    """Draw an objective, and return where the upper rows of labels stop being free.

    The label is at the right, on the side of the line that the levels beyond the knee leave free.
    """
    at = y(value)
    plot.add(
        element("line", x1=plot.left, x2=plot.right, y1=at, y2=at, class_="rule bad"),
        text(label, plot.right, at - 5 if is_least else at + 13, "end", class_="label halo bad"),
    )
    return plot.right - CHARACTER * len(label) if at < plot.top + 50 else inf


def _knees(plot: Plot, targets: Sequence[dict[str, Any]], x: Scale, free_until: float) -> None:
    """Draw a vertical line at the knee of each server."""
    marks = (
        (x(target["knee"]["level"]), f"knee {whole_or_number(target['knee']['level'])}", COLORS[index])
        for index, target in enumerate(targets)
        if target["knee"]["level"] is not None
    )
    plot.verticals(marks, free_until)


def knee_text(knee: dict[str, Any]) -> str:
    """Return the knee in words."""
    if knee["level"] is None:
        return "no level meets them"
    return f"knee: {whole_or_number(knee['level'])} {UNITS[knee['kind']]}"


def _at_knee(knee: dict[str, Any], row: Sequence[Level]) -> str:
    found = next((level for level in row if level.at == knee["level"]), None)
    if found is None:
        return "no knee"
    return f"at the knee p50 {number(found.middle)} · {found.tail} {number(found.top)} ms"
