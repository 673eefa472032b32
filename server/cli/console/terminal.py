"""Output to the terminal: errors, tables, and the progress of a download."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LINE_PERCENT = 10
"""Percent of a download between two lines of a log."""

LINE_SECONDS = 5.0
"""Seconds between two lines of a log, if the download is slow."""


def open_standard_streams() -> None:
    """Open the null device for each standard stream that the parent has closed.

    Python has no stream then, and the next file or socket would get its number, so that native code, which writes its
    messages to 2, would write into the store.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, errors="backslashreplace")  # noqa: SIM115 - stays open; takes the free number
            setattr(sys, name, stream)


def print_error(message: str) -> None:
    print(f"responsed: {message}", file=sys.stderr)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class DownloadProgress:
    """Callback for (bytes so far, total bytes): redraws one bar on a terminal, and prints lines to other streams.

    As a context manager it also ends the bar's line if the download fails, so that the error has its own line.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._bar_open = False
        self._last: tuple[int, float] | None = None  # percent and time of the last line, in seconds

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // total
        text = f"{percent:3d}% {done / 1e6:.0f}/{total / 1e6:.0f} MB"
        if self._stream.isatty():
            self._draw(text, done / total, ended=done >= total)
        elif self._is_due(percent) or done >= total:
            self._stream.write(text.strip() + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar_open:
            self._stream.write("\n")

    def _draw(self, text: str, share: float, ended: bool) -> None:
        # Some terminals wrap at the last column, so the bar leaves it free. Serial consoles may show ASCII only.
        width = (os.get_terminal_size(self._stream.fileno()).columns or 80) - 1
        cells = min(width - len(text) - 3, 40)
        bar = f" [{'#' * int(cells * share):{cells}}]" if cells > 0 else ""
        self._stream.write("\r" + (text + bar)[:width].ljust(width) + "\n" * ended)
        self._bar_open = not ended

    def _is_due(self, percent: int) -> bool:
        now = self._clock()
        if self._last and percent < self._last[0] + LINE_PERCENT and now < self._last[1] + LINE_SECONDS:
            return False
        self._last = (percent, now)
        return True
