"""Detect other work on the machine, which makes figures worse and noisier than the server is.

Before the run, nothing should run: a short sample of `/proc/stat` and of `/proc/pressure/cpu` shows other work. During
the run, `steal` shows a host that gave the core to others, and CPU time that belongs neither to the bench nor to the
processes of the server belongs to others.

https://docs.kernel.org/filesystems/proc.html and https://docs.kernel.org/accounting/psi.html
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from wording import counted

SAMPLE_SECONDS = 0.1
"""Seconds of the sample before the run."""
BUSY_BEFORE = 0.1
"""Share of all cores' time that others may use before the run."""
WAITING_BEFORE = 0.1
"""Share of the time in which a process waited for a core before the run."""
BUSY_DURING = 0.1
"""Share of all cores' time that others may use during the run."""
STOLEN_DURING = 0.02
"""Share of all cores' time that the host may take during the run."""


class CpuTimes(NamedTuple):
    """Seconds of all cores since the machine's start."""

    total: float
    busy: float
    stolen: float


class OtherWorkWatch:
    """Watch the machine from its creation, before the run, to `report`."""

    def __init__(self, root: Path = Path("/"), sample_seconds: float = SAMPLE_SECONDS) -> None:
        self._root = root
        self._before = self._sample(sample_seconds)
        self._start = cpu_times(root)
        self._pids: tuple[int, ...] | None = None
        self._own = 0.0

    def add(self, pids: Iterable[int]) -> None:
        """Count the CPU time of these processes, of the bench and of all their children as the run's own. Without a
        call, the work of others during the run is unknown."""
        self._pids = (*pids, os.getpid())
        self._start = cpu_times(self._root)
        self._own = self._own_seconds(self._pids)

    def report(self) -> dict[str, Any]:
        """Return the shares of other work, and in `busy` the sentences that say so; none on a quiet machine."""
        end = cpu_times(self._root)
        found = self._before | {"stolen_during": None, "others_during": None}
        if end and self._start and end.total > self._start.total:
            total = end.total - self._start.total
            found["stolen_during"] = round((end.stolen - self._start.stolen) / total, 4)
            if self._pids is not None:
                others = end.busy - self._start.busy - self._own_seconds(self._pids) + self._own
                found["others_during"] = round(max(0.0, others / total), 4)
        return found | {"busy": sentences(found, os.cpu_count() or 1)}

    def _sample(self, seconds: float) -> dict[str, Any]:
        start, waited, began = cpu_times(self._root), _waited(self._root), time.monotonic()
        time.sleep(seconds)
        end, waited_then, took = cpu_times(self._root), _waited(self._root), time.monotonic() - began
        shares: dict[str, Any] = {"load_average": _load_average(), "busy_before": None, "waiting_before": None}
        if start and end and end.total > start.total:
            shares["busy_before"] = round((end.busy - start.busy) / (end.total - start.total), 4)
        if waited is not None and waited_then is not None:
            shares["waiting_before"] = round(min(1.0, (waited_then - waited) / took), 4)
        return shares

    def _own_seconds(self, pids: tuple[int, ...]) -> float:
        """Return the seconds of the processes, and of the bench's children that have ended."""
        times = os.times()
        return times.children_user + times.children_system + sum(process_seconds(self._root, pids))


def sentences(shares: dict[str, Any], cores: int) -> list[str]:
    """Return one sentence for each sign of other work."""
    found = [words.format(shares[name]) for name, limit, words in _BEFORE if (shares[name] or 0.0) > limit]
    if shares["busy_before"] is None and (average := shares["load_average"]) and average[0] > cores:
        found.append(f"before the run, the load average was {average[0]:g} on {counted(cores, 'core')}")
    return found + [words.format(shares[name]) for name, limit, words in _DURING if (shares[name] or 0.0) > limit]


_BEFORE = (
    ("busy_before", BUSY_BEFORE, "before the run, other programs used {:.0%} of all cores"),
    ("waiting_before", WAITING_BEFORE, "before the run, processes waited for a core {:.0%} of the time"),
)
_DURING = (
    ("others_during", BUSY_DURING, "during the run, other programs used {:.0%} of all cores"),
    ("stolen_during", STOLEN_DURING, "during the run, the host took {:.0%} of all cores (steal)"),
)
"""Share -> the limit beyond which it is a sign of other work, and the sentence about it."""


def cpu_times(root: Path) -> CpuTimes | None:
    """Return the times of `/proc/stat`; None where there is none."""
    try:
        ticks = (root / "proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, idle, iowait, irq, softirq, stolen = (int(each) / _ticks() for each in ticks)
    except (OSError, ValueError):
        return None
    busy = user + nice + system + irq + softirq
    return CpuTimes(busy + idle + iowait + stolen, busy, stolen)


def process_seconds(root: Path, pids: Iterable[int]) -> list[float]:
    """Return the CPU seconds of the processes and of all their living descendants."""
    wanted = set(pids)
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for path in root.glob("proc/[0-9]*/stat") if wanted else ():
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # the process has ended
        parents[int(path.parent.name)] = int(fields[1])
        seconds[int(path.parent.name)] = sum(map(int, fields[11:13])) / _ticks()
    while more := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return [spent for pid, spent in seconds.items() if pid in wanted]


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


def _waited(root: Path) -> float | None:
    """Return the seconds in which at least one process waited for a core; None if the kernel does not count them."""
    try:
        line = (root / "proc/pressure/cpu").read_text().split("\n", 1)[0]
        return int(line.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None


def _load_average() -> list[float] | None:
    try:
        return [round(each, 2) for each in os.getloadavg()]
    except OSError:
        return None
