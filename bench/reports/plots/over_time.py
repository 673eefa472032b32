"""Latency over time: one point for each request, at its start. A stall, a warm-up or a slow drift is visible here."""

from collections.abc import Iterator, Sequence

from measures import MEASURES, percentile
from record import Record
from wording import counted

from reports.captioned_plot import NARROW, WIDE, CaptionedPlot
from reports.scales import fitting, linear, number
from reports.series import Series, legends
from reports.svg import Plot, cross, dot, element

MAX_POINTS = 1500
"""Points of a server that are drawn; of more requests, those that are slowest in each interval."""


def over_time(found: Sequence[Series], measure: str, title: str) -> CaptionedPlot | None:
    """Return the plot of a measure; None without samples."""
    if not any(each.samples(measure) for each in found):
        return None
    drawings = [_drawing(found, measure, title, width) for width in (NARROW, WIDE)]
    caption = " ".join([f"{title}: {MEASURES[measure][0]}.", *_legend_of_signs(found)])
    return CaptionedPlot(
        f"{measure}-over-time", f"{title} over time", drawings, legends(found, lambda s: s.samples(measure)), caption
    )


def _legend_of_signs(found: Sequence[Series]) -> Iterator[str]:
    """Yield a sentence about each sign in the drawing that is not a point."""
    records = [record for each in found for record in each.records]
    if _are_of_one_group(records):
        yield "Dashed: the median."
    if failed := sum(bool(record.error) for record in records):
        yield f"Crosses: {counted(failed, 'failed request')}."
    if any(len(each.good) > MAX_POINTS for each in found):
        yield f"Of many requests, the {MAX_POINTS:,} slowest of each interval are drawn."


def _drawing(found: Sequence[Series], measure: str, title: str, width: float) -> str:
    plot = Plot(width, 250)
    values = [value for each in found for value in each.samples(measure)]
    latest = max(_begin(record) for each in found for record in each.records)
    x, y = linear(0.0, latest * 1.02, plot.left, plot.right), fitting(values, plot.bottom, plot.top)
    plot.axes(x, y, "start of the request, s", f"{title}, ms")
    for each in found:
        middle = y(percentile(each.samples(measure), 50) or 0.0)
        if _are_of_one_group(each.records):
            plot.add(element("line", x1=plot.left, x2=plot.right, y1=middle, y2=middle, class_=f"rule {each.color}"))
        plot.add(*(_point(each, begin, value, x(begin), y(value), title) for begin, value in _points(each, measure)))
        plot.add(*(cross(x(begin), plot.top, f"{each.name}: {kind}") for begin, kind in _failures(each)))
    return plot.markup(f"{title} of each request over time")


def _are_of_one_group(records: Sequence[Record]) -> bool:
    return len({record.group for record in records}) == 1


def _failures(each: Series) -> list[tuple[float, str]]:
    """Return start and kind of error of the failed requests."""
    return [(_begin(record), record.error_kind) for record in each.records if record.error]


def _point(each: Series, begin: float, value: float, x: float, y: float, title: str) -> str:
    return dot(x, y, each.color, f"{each.name}\n{title} {number(value)} ms, started at {begin:.2f} s")


def _points(each: Series, measure: str) -> list[tuple[float, float]]:
    """Return start and milliseconds of the requests to draw."""
    formula = MEASURES[measure][1]
    found = sorted((_begin(record), 1000 * value) for record in each.good for value in formula(record))
    per_interval = -(-len(found) // MAX_POINTS)
    intervals = (found[index : index + per_interval] for index in range(0, len(found), per_interval or 1))
    return [max(interval, key=lambda point: point[1]) for interval in intervals]


def _begin(record: Record) -> float:
    return record.start if record.planned is None else record.planned
