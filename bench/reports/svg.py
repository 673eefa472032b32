"""Drawings in SVG: a plot with two axes, on which marks are drawn. Colors are classes of the style sheet."""

from collections.abc import Iterable, Sequence
from html import escape
from math import inf

from reports.scales import Scale

CHARACTER = 7.6
"""Width of a character of a label in pixels, at most."""
LINE = 15.0
"""Height of a line of labels in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 56.0, 18.0, 30.0, 42.0
"""Margins of a plot in pixels: for the labels of its axes."""


def element(tag: str, content: str = "", **attributes: object) -> str:
    """Return an element; `content` is markup. Underscores in names become hyphens, `class_` becomes `class`."""
    pairs = "".join(
        f' {name.strip("_").replace("_", "-")}="{escape(str(value))}"' for name, value in attributes.items()
    )
    return f"<{tag}{pairs}>{content}</{tag}>" if content else f"<{tag}{pairs}/>"


def text(content: str, x: float, y: float, anchor: str = "start", class_: str = "") -> str:
    """Return a line of text; `anchor` is `start`, `middle` or `end`."""
    return element("text", escape(content), x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_=class_ or "label")


def hint(content: str) -> str:
    """Return the text that a browser shows beside the pointer."""
    return element("title", escape(content))


class Plot:
    """A plot under construction; `markup` returns it. The title of the y axis is on top of it, and so horizontal."""

    def __init__(self, width: float, height: float, top: float = TOP) -> None:
        self.width, self.height, self.top = width, height, top
        self.left, self.right, self.bottom = LEFT, width - RIGHT, height - BOTTOM
        self._parts: list[str] = []

    def axes(self, x: Scale, y: Scale, x_title: str, y_title: str) -> None:
        """Draw grid, ticks and titles."""
        for value, label in _labelled(y, 5):
            self._parts += [
                element("line", x1=self.left, x2=self.right, y1=y(value), y2=y(value), class_="grid"),
                text(label, self.left - 6, y(value) + 4, "end"),
            ]
        self.axis_below(x, x_title)
        self._parts.append(text(_titled(y_title, y), 2, 12, class_="title"))

    def axis_below(self, x: Scale, title: str) -> None:
        """Draw the horizontal axis."""
        for value, label in _labelled(x, max(3, int((self.right - self.left) // 70))):
            self._parts += [
                element("line", x1=x(value), x2=x(value), y1=self.bottom, y2=self.bottom + 4, class_="axis"),
                text(label, x(value), self.bottom + 17, "middle"),
            ]
        self._parts += [
            element("line", x1=self.left, x2=self.right, y1=self.bottom, y2=self.bottom, class_="axis"),
            text(_titled(title, x), self.right, self.height - 6, "end", "title"),
        ]

    def add(self, *marks: str) -> None:
        """Draw marks on top of all others."""
        self._parts += marks

    def verticals(self, marks: Iterable[tuple[float, str, str]], free_until: float = inf) -> None:
        """Draw vertical lines at pixels, each with its label and its class; labels that would overlap get rows of
        their own, below one another. The first two rows are free until that pixel."""
        taken = [0.0, 0.0]
        labels = []
        for x, label, class_ in sorted(marks):
            size = CHARACTER * len(label)
            at = min(x + 3, self.right - size) if x + 3 + size > self.right else x + 3
            first = 0 if at + size < free_until else 2
            row = next((index for index in range(first, len(taken)) if taken[index] <= at), len(taken))
            taken[row : row + 1] = [at + size + 4]
            self._parts.append(element("line", x1=x, x2=x, y1=self.top, y2=self.bottom, class_=f"rule {class_}"))
            labels.append(text(label, at, self.top + 11 + LINE * row, class_=f"label halo {class_}"))
        self._parts += labels

    def markup(self, name: str) -> str:
        """Return the drawing; `name` describes it to those who cannot see it."""
        box = f"0 0 {self.width:g} {self.height:g}"
        return element("svg", "".join(self._parts), viewBox=box, role="img", aria_label=name)


def line(points: Sequence[tuple[float, float]], class_: str) -> str:
    """Return a line through points in pixels."""
    return element("path", d="M" + "L".join(f"{x:g} {y:g}" for x, y in points), class_=f"line {class_}")


def dot(x: float, y: float, class_: str, about: str, radius: float = 2.6) -> str:
    """Return a point with its text for the pointer."""
    return element("circle", hint(about), cx=x, cy=y, r=radius, class_=f"dot {class_}")


def cross(x: float, y: float, about: str) -> str:
    """Return the sign of a failed request."""
    return element("path", hint(about), d=f"M{x - 4:g} {y - 4:g}l8 8m0-8l-8 8", class_="failed")


def _labelled(scale: Scale, count: int) -> list[tuple[float, str]]:
    return [(value, f"{value:,.10g}") for value in scale.ticks(count)]


def _titled(title: str, scale: Scale) -> str:
    return f"{title} (log scale)" if scale.is_log else title
