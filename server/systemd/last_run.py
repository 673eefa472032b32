"""Mark of a running server in the state folder, by which the next start notices an abnormal end.

The mark is locked while its process lives, so that several servers may share the folder, and no process number that
was given again matters. The kernel ends a process that is out of memory without a word; its counters and systemd name
the reason.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.wording import counted

PREFIX = "running-"
"""Beginning of a mark's name; the process number follows."""
SYSTEMD_RESULT = "ended"
"""File that the unit's ExecStopPost= writes: $SERVICE_RESULT, $EXIT_CODE and $EXIT_STATUS (systemd.exec(5))."""
KILLS, BOOT = Path("/proc/vmstat"), Path("/proc/sys/kernel/random/boot_id")
REASONS = {
    "oom-kill": "the kernel's OOM killer has ended it",
    "watchdog": "systemd has ended it, since it gave no sign of life",
    "timeout": "systemd has ended it, since it did not start or stop in time",
}
"""Result of systemd -> reason."""

log = logging.getLogger("responsed")


class RunMark(Struct, frozen=True):
    pid: int
    since: str
    """Time of the start."""
    serving: bool
    """False while the model loads, when a signal ends the process at once."""
    boot: str
    """Number of the machine's boot; empty if it is hidden."""
    oom_kills: int | None
    """Processes that the kernel had ended for lack of memory; None if it is hidden."""


@contextmanager
def marked(folder: Path, serving: bool = True) -> Iterator[None]:
    """Mark this process as running while the block runs. Do nothing if the folder cannot be written."""
    path, lock = folder / f"{PREFIX}{os.getpid()}.json", None
    mark = RunMark(os.getpid(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), serving, _boot(), _oom_kills())
    with suppress(OSError):
        lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, msgspec.json.encode(mark))
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def report_ends(folder: Path) -> None:
    """Write a line for each earlier server of the folder that ended abnormally, and remove its mark."""
    result = _take(folder / SYSTEMD_RESULT)
    for path in sorted(folder.glob(f"{PREFIX}*.json")):
        if (text := _take(path)) is None:
            continue
        with suppress(msgspec.DecodeError):
            mark = msgspec.json.decode(text, type=RunMark)
            reason = cause(mark, _boot(), _oom_kills(), result or "")
            if mark.serving or reason:
                log.warning(
                    "the last run (process %d, since %s) ended abnormally: %s",
                    mark.pid,
                    mark.since,
                    reason or "the kernel's log may say why (journalctl -k)",
                )


def cause(mark: RunMark, boot: str, oom_kills: int | None, result: str) -> str:
    """Return the reason of an end as far as the kernel or systemd names it; empty if they don't.

    `result`: see `SYSTEMD_RESULT`.
    """
    service, _, exit_ = result.strip().partition(" ")
    if service in REASONS:
        return REASONS[service]
    if service in ("signal", "core-dump"):
        return f"signal {exit_.rpartition(' ')[2]}"
    if mark.boot and boot and mark.boot != boot:
        return "the machine has started again since"
    if mark.oom_kills is not None and oom_kills is not None and oom_kills > mark.oom_kills:
        return f"the kernel's OOM killer ended {counted(oom_kills - mark.oom_kills, 'process', 'processes')} since"
    return ""


def _take(path: Path) -> str | None:
    """Return the text of a file and remove it; None if it is missing, or locked by a process that lives."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path.unlink()
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _boot() -> str:
    with suppress(OSError):
        return BOOT.read_text().strip()
    return ""


def _oom_kills() -> int | None:
    """Return the number of processes that the kernel has ended for lack of memory since the machine's start."""
    with suppress(OSError):
        for line in KILLS.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
