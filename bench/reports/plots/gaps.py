"""The inter-token latency: a histogram of all gaps, and their cumulative distribution."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain, pairwise

from measures import percentile

from reports.captioned_plot import NARROW, CaptionedPlot
from reports.scales import Scale, fitting, linear, number
from reports.series import Series, legends
from reports.svg import Plot, dot, element, hint, line

BINS = 40
MARKED = (50, 90, 99)
"""Percentiles that get a point."""
FORMULA = "ITL is the time between two deltas of one answer."


def histogram(found: Sequence[Series], suffix: str = "") -> CaptionedPlot | None:
    """Return the histogram; None without gaps. Rare long gaps are counted in the caption, not drawn."""
    found = [each for each in found if _positive(each)]
    if not found:
        return None
    plot = Plot(NARROW, 250)
    x = _range([value for each in found for value in _positive(each)], plot.left, plot.right)
    edges = _edges(x)
    shares = [_shares(each, edges) for each in found]
    y = linear(0.0, max(map(max, shares)) * 1.25, plot.bottom, plot.top)
    plot.axes(x, y, "ITL, ms", "share of gaps, %")
    for each, heights in zip(found, shares, strict=True):
        plot.add(*_bars(each, heights, edges, x, y))
    plot.verticals(chain.from_iterable(_marks(each, x) for each in found))
    caption = " ".join([FORMULA, *filter(None, (_outside(each, x, len(found) > 1) for each in found))])
    drawing = plot.markup("Histogram of the inter-token latency")
    return CaptionedPlot(f"itl-histogram{suffix}", "Inter-token latency", [drawing], legends(found, _all), caption)


def distribution(found: Sequence[Series], suffix: str = "") -> CaptionedPlot | None:
    """Return the cumulative distribution with its percentiles as points; None without gaps."""
    found = [each for each in found if _positive(each)]
    if not found:
        return None
    plot = Plot(NARROW, 250)
    x = fitting([value for each in found for value in _positive(each)], plot.left, plot.right, from_zero=False)
    y = linear(0.0, 100.0, plot.bottom, plot.top)
    plot.axes(x, y, "ITL, ms", "share of gaps that are at most as long, %")
    for each in found:
        plot.add(line(_steps(_all(each), x, y), each.color))
        points = _percentiles(each, MARKED)
        plot.add(*(dot(x(v), y(p), each.color, f"{each.name}\np{p} {number(v)} ms", 3.5) for p, v in points))
    drawing = plot.markup("Cumulative distribution of the inter-token latency")
    legend = [(each.color, each.name, _points(each)) for each in found]
    caption = "Points: p50, p90 and p99, where there are enough gaps."
    return CaptionedPlot(f"itl-distribution{suffix}", "Inter-token latency, cumulative", [drawing], legend, caption)


def _all(each: Series) -> list[float]:
    return each.samples("itl")


def _positive(each: Series) -> list[float]:
    values = _all(each)
    return values[bisect_right(values, 0.0) :]


def _percentile(each: Series, point: int) -> float | None:
    """Return a percentile that the number of gaps can carry."""
    values = _all(each)
    return percentile(values, point) if len(values) * (100 - point) >= 100 or point == 50 else None


def _percentiles(each: Series, points: Sequence[int]) -> list[tuple[int, float]]:
    """Return the points with those percentiles that the number of gaps can carry."""
    return [(point, value) for point in points if (value := _percentile(each, point)) is not None]


def _marks(each: Series, x: Scale) -> list[tuple[float, str, str]]:
    """Return place, label and color of the vertical lines at the median and the 99th percentile."""
    found = _percentiles(each, (50, 99))
    return [(x(value), f"p{point} {number(value)}", each.color) for point, value in found if x.low <= value <= x.high]


def _edges(x: Scale) -> list[float]:
    """Return the edges of the bins, which are equally wide on the scale."""
    shares = [index / BINS for index in range(BINS + 1)]
    if x.is_log:
        return [x.low * (x.high / x.low) ** share for share in shares]
    return [x.low + (x.high - x.low) * share for share in shares]


def _points(each: Series) -> str:
    found = [f"p{point} {number(value)}" for point, value in _percentiles(each, MARKED)]
    return " · ".join(found) + " ms"


def _range(values: Sequence[float], begin: float, end: float) -> Scale:
    """Return a scale for most of the values: without the last 0.5 %, if they are far away."""
    inner = [percentile(values, percent) or 0.0 for percent in (0.5, 99.5)]
    scale = fitting([value for value in values if inner[0] <= value <= inner[1]], begin, end)
    if scale.is_log or inner[0] < inner[1] / 3:
        return scale
    return linear(inner[0] * 0.97, inner[1] * 1.03, begin, end)  # all gaps are alike: show how they differ


def _shares(each: Series, edges: Sequence[float]) -> list[float]:
    """Return the percent of the gaps in each bin."""
    values = _all(each)
    counts, index = [], 0
    while index < len(values) and values[index] < edges[0]:
        index += 1
    for edge in edges[1:]:
        first = index
        while index < len(values) and values[index] <= edge:
            index += 1
        counts.append(100 * (index - first) / len(values))
    return counts


def _bars(each: Series, heights: Sequence[float], edges: Sequence[float], x: Scale, y: Scale) -> list[str]:
    return [
        element(
            "rect",
            hint(f"{each.name}\n{number(low)} to {number(high)} ms: {share:.1f}% of the gaps"),
            x=x(low),
            y=y(share),
            width=round(max(0.5, x(high) - x(low) - 0.6), 1),
            height=round(y(0) - y(share), 1),
            class_=f"bar {each.color}",
        )
        for share, (low, high) in zip(heights, pairwise(edges), strict=True)
        if share
    ]


def _outside(each: Series, x: Scale, named: bool) -> str:
    """Return a sentence about the gaps that are not drawn."""
    values = _all(each)
    zero, above = bisect_right(values, 0.0), len(values) - bisect_right(values, x.high)
    parts = [f"{100 * zero / len(values):.1f}% of the gaps are 0 (deltas in one read)"] if zero else []
    verb = "is" if above == 1 else "are"
    longer = f"{above:,} of {len(values):,} {verb} longer than {number(x.high)} ms, at most {number(max(values))} ms"
    parts += [longer] * bool(above)
    return (f"{each.name}: " if named and parts else "") + "; ".join(parts) + "." * bool(parts)


def _steps(ranked: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """Return the line of the cumulative distribution, with no more points than can be seen."""
    count = len(ranked)
    shares = sorted({*(index / 200 for index in range(201)), *(1 - index / 2000 for index in range(20))})
    return [(x(ranked[min(count - 1, int(share * (count - 1)))]), y(100 * share)) for share in shares]
