"""The budget of a token: a stacked bar of the stages that a token passes, and one of those of the first token."""

from collections.abc import Sequence
from typing import Any

from reports.captioned_plot import NARROW, WIDE, CaptionedPlot
from reports.scales import linear, number
from reports.series import shortened
from reports.svg import CHARACTER, Plot, element, hint, text

BAR, ROW = 26.0, 50.0
BOLD_CHARACTER = 1.3 * CHARACTER
"""Width of a character of a bar's name in pixels, at most."""
LARGEST_SHARE = 0.7
"""Share of one stage from which the others get a bar of their own, on which they can be seen."""
COLORS = {
    "decode": 0,
    "prefill": 0,
    "wait": 1,
    "queue": 1,
    "sample": 2,
    "hand-over": 3,
    "encode": 4,
    "send": 5,
    "network": 6,
    "client": 7,
    "connect": 8,
    "prepare": 9,
}
"""Stage -> its color in the style sheet."""
_KINDS = (("token", "Where a token's time goes"), ("first_token", "Where the first token's time goes"))

Bars = Sequence[tuple[str, dict[str, float]]]
"""Name of a server, and milliseconds by stage."""


def stages(budgets: Sequence[tuple[str, dict[str, Any] | None]]) -> list[CaptionedPlot]:
    """Return the plots of budgets by server, as `token_budget.budget` returns them; none without one."""
    found = []
    for kind, title in _KINDS:
        bars = [
            (name, {row["stage"]: row["mean_ms"] for row in budget[kind]})
            for name, budget in budgets
            if budget is not None
        ]
        if any(sum(parts.values()) > 0 for _, parts in bars):
            found.append(_plot(kind, title, bars))
    return found


def _plot(kind: str, title: str, bars: Bars) -> CaptionedPlot:
    names = list(dict.fromkeys(stage for _, parts in bars for stage in parts))
    drawings = [_drawings(bars, names, width, title) for width in (NARROW, WIDE)]
    legend = [(f"part-{COLORS.get(stage, 7)}", stage, _numbers(bars, stage)) for stage in names]
    caption = "Means of the server's times and of the client's, in the order in which a token passes the stages."
    return CaptionedPlot(f"{kind.replace('_', '-')}-budget", title, drawings, legend, caption)


def _drawings(bars: Bars, names: Sequence[str], width: float, title: str) -> str:
    """Return the bars of all stages and, if one stage is most of them, those of all others."""
    largest = max(names, key=lambda stage: sum(parts.get(stage, 0.0) for _, parts in bars))
    others = [(name, {stage: spent for stage, spent in parts.items() if stage != largest}) for name, parts in bars]
    share = 1 - sum(sum(parts.values()) for _, parts in others) / sum(sum(parts.values()) for _, parts in bars)
    whole = _drawing(bars, width, title, "")
    return (
        whole if share < LARGEST_SHARE or share == 1 else whole + _drawing(others, width, title, f" without {largest}")
    )


def _drawing(bars: Bars, width: float, title: str, without: str) -> str:
    plot = Plot(width, 54 + len(bars) * ROW)
    plot.left = 4.0
    longest = max(sum(max(0.0, spent) for spent in parts.values()) for _, parts in bars)
    unit, factor = ("ms", 1.0) if longest >= 5 else ("µs", 1000.0)
    x = linear(0.0, factor * longest * 1.02, plot.left, plot.right)
    plot.axis_below(x, f"mean time{without}, {unit}")
    for index, (name, parts) in enumerate(bars):
        top, begin = 4 + index * ROW, 0.0
        rest = f"{without}: {number(factor * sum(parts.values()))} {unit}"
        label = f"{shortened(name, int(width / BOLD_CHARACTER) - len(rest))}{rest}"
        plot.add(text(label, plot.left, top + 12, class_="strong"))
        for stage, spent in parts.items():
            left, right = x(factor * begin), x(factor * (begin + max(0.0, spent)))
            size = {"x": left, "y": top + 18, "width": round(max(0.6, right - left - 0.5), 1), "height": BAR}
            plot.add(
                element("rect", hint(f"{stage}: {_time(spent)}"), **size, class_=f"part part-{COLORS.get(stage, 7)}")
            )
            begin += max(0.0, spent)
    return plot.markup(f"{title}{without}")


def _numbers(bars: Bars, stage: str) -> str:
    """Return time and share of a stage, for each server."""
    found = []
    for _, parts in bars:
        spent, whole = parts.get(stage), sum(parts.values())
        found.append("-" if spent is None or not whole else f"{_time(spent)} ({100 * spent / whole:.1f}%)")
    return " · ".join(found)


def _time(milliseconds: float) -> str:
    return f"{number(milliseconds)} ms" if milliseconds >= 1 else f"{number(round(1000 * milliseconds, 1))} µs"
