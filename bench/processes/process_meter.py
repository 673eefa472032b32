"""Memory, CPU time and threads of a server's process and its children, from /proc (`--pid`).

https://man7.org/linux/man-pages/man5/proc.5.html
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

SAMPLE_SECONDS = 1.0
"""Minimum seconds between two looks at the memory."""
_TICKS = os.sysconf("SC_CLK_TCK")
_MB = 1_000_000


@dataclass(slots=True, frozen=True)
class ProcessUse:
    """Use of a process and its children at one time."""

    rss: int
    cpu: float
    threads: int


def process_use(pid: int) -> ProcessUse | None:
    """Return the use of a process and its children; None if it does not run."""
    found = [use for each in _family(pid) if (use := _one(each))]
    if not found:
        return None
    return ProcessUse(sum(u.rss for u in found), sum(u.cpu for u in found), sum(u.threads for u in found))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _one(pid: int) -> ProcessUse | None:
    try:
        # Field 2 is a name in parentheses, which may contain blanks; the fields here are counted from field 3.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    resident = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
    return ProcessUse(1024 * resident, (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[17]))


class ProcessMeter:
    """Use of one server over the parts of a run in which it works."""

    def __init__(self, pid: Callable[[], int], use: Callable[[int], ProcessUse | None] = process_use) -> None:
        """`pid` returns the process id, which a restart changes. Raises ValueError if it does not run."""
        self._pid = pid
        self._use = use
        self._first = self._last = use(pid())
        if self._first is None:
            raise ValueError(f"--pid {pid()}: no such process")
        self._begin: tuple[int, ProcessUse] | None = None
        self._cpu = 0.0
        self._peak = 0
        self._next = 0.0

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._pid()

    def begin(self) -> None:
        """Begin to count CPU time."""
        use = self._sample()
        self._begin = (self._pid(), use) if use else None

    def tick(self) -> None:
        """Look at the memory, at most once a second."""
        if (now := perf_counter()) >= self._next:
            self._next = now + SAMPLE_SECONDS
            self._sample()

    def end(self) -> None:
        """Count the CPU time since the begin; that of a process that was restarted meanwhile is that of the new one."""
        use = self._sample()
        if use and self._begin:
            pid, before = self._begin
            self._cpu += use.cpu - (before.cpu if pid == self._pid() else 0.0)

    def figures(self, output_tokens: int) -> dict[str, Any]:
        """Return the figures for JSON."""
        first, last = self._first, self._last
        assert first is not None
        assert last is not None
        return {
            "pid": self._pid(),
            "rss_mb_before": round(first.rss / _MB, 1),
            "rss_mb": round(last.rss / _MB, 1),
            "peak_rss_mb": round(self._peak / _MB, 1),
            "threads": last.threads,
            "cpu_s": round(self._cpu, 2),
            "cpu_s_per_1000_output_tokens": round(1000 * self._cpu / output_tokens, 3) if output_tokens else None,
        }

    def _sample(self) -> ProcessUse | None:
        if use := self._use(self._pid()):
            self._last, self._peak = use, max(self._peak, use.rss)
        return use
