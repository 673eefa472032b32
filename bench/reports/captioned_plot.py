"""A plot of the page: its title, a legend with numbers, the drawing, and a caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

NARROW, WIDE = 400.0, 820.0
"""Widths of drawings, on which their text is as large as the page's: a phone or a column; two columns."""


@dataclass(frozen=True, slots=True)
class CaptionedPlot:
    """A drawing with its words. `drawings` is one for any width, or a narrow and a wide one."""

    id: str
    title: str
    drawings: Sequence[str]
    legend: Sequence[tuple[str, str, str]] = ()
    """Color, name and numbers of each series."""
    caption: str = ""

    def markup(self) -> str:
        """Return the HTML of the plot."""
        wide = len(self.drawings) > 1
        sizes = ("narrow", "wide") if wide else ("",)
        drawings = "".join(
            f'<div class="drawing {size}">{drawing}</div>' for size, drawing in zip(sizes, self.drawings, strict=True)
        )
        rows = "".join(
            f'<li><i class="{color}"></i><b>{escape(name)}</b> <span>{escape(numbers)}</span></li>'
            for color, name, numbers in self.legend
        )
        legend = f"<ul class=legend>{rows}</ul>" if rows else ""
        caption = f"<p>{escape(self.caption)}</p>" if self.caption else ""
        classes = ' class="two"' if wide else ""
        heading = f"<h3>{escape(self.title)}</h3>"
        return f'<figure id="{self.id}"{classes}><figcaption>{heading}{legend}</figcaption>{drawings}{caption}</figure>'
