"""Progress of a download, on a terminal and in a log."""

from __future__ import annotations

import os
import termios
from contextlib import suppress
from io import StringIO

import pytest

from server.cli.console.terminal import DownloadProgress

MB = 1_000_000


def test_progress_in_a_log_is_a_line_every_ten_percent_or_five_seconds() -> None:
    stream = StringIO()
    times = iter([0.0, 1.0, 2.0, 3.0, 7.5, 8.0])
    progress = DownloadProgress(stream, lambda: next(times))
    for done in [0, 5, 10, 19, 19.5, 100]:
        progress(int(done * MB), 100 * MB)
    lines = ["0% 0/100 MB", "10% 10/100 MB", "19% 20/100 MB", "100% 100/100 MB"]
    assert stream.getvalue().splitlines() == lines


def on_terminal(columns: int, reports: list[tuple[int, int]]) -> str:
    first_pull, second_pull = os.openpty()
    termios.tcsetwinsize(second_pull, (24, columns))
    with os.fdopen(second_pull, "w") as stream, DownloadProgress(stream) as progress:
        for done, total in reports:
            progress(done, total)
    shown = b""
    with (
        os.fdopen(first_pull, "rb", buffering=0) as screen,
        suppress(OSError),
    ):  # EIO: all is read, and nobody writes
        while part := screen.read(10_000):
            shown += part
    return shown.decode()


def test_progress_on_a_terminal_is_one_line_that_ends() -> None:
    half = " 50% 1/2 MB [########        ]"
    full = "100% 2/2 MB [################]"
    shown = on_terminal(31, [(MB, 2 * MB), (2 * MB, 2 * MB)])
    assert shown == f"\r{half}\r{full}\r\n"


@pytest.mark.parametrize("columns", [0, 1, 10, 12, 13, 16, 80, 300])
def test_progress_never_wraps_and_ends_its_line_after_a_failure(columns: int) -> None:
    shown = on_terminal(columns, [(MB, 2 * MB)])
    assert shown.startswith("\r")
    assert shown.endswith("\r\n")
    assert len(shown.strip("\r\n")) == (columns or 80) - 1
