"""Facts about the machine, without which a figure cannot be compared with another one.

Everything is read, nothing is guessed: a fact that the machine does not report is None.
"""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def machine(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts of this machine, on which the bench runs; `root` has its `proc`, `sys` and `etc`."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    memory = _field(root / "proc/meminfo", "MemTotal")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "computer": _computer(root),
        "cpu": _cpu(root),
        "architecture": platform.machine(),
        "cores": cores,
        "usable_cores": usable,
        "governor": _governor(root),
        "temperature_c": _temperature(root),
        "memory_mb": int(memory.split()[0]) // 1024 if memory else None,
        "system": _field(root / "etc/os-release", "PRETTY_NAME", "="),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _field(path: Path, name: str, separator: str = ":") -> str | None:
    """Return the first value of a name in a file of lines such as `name: value`."""
    for line in (_text(path) or "").splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip().strip('"') or None
    return None


def _computer(root: Path) -> str | None:
    """Return the maker's name of the computer: of its device tree, or of its firmware."""
    if found := _text(root / "proc/device-tree/model"):
        return found
    names = (_text(root / f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return " ".join(filter(None, names)) or None


def _cpu(root: Path) -> str | None:
    """Return the name of the CPU. Arm's kernel has no name, but the part's number."""
    info = root / "proc/cpuinfo"
    part = _field(info, "CPU part")
    named = next(filter(None, (_field(info, name) for name in ("model name", "Model", "Hardware"))), None)
    return named or (f"CPU part {part}" if part else None) or platform.processor() or None


def _governor(root: Path) -> str | None:
    """Return the CPU governors of all cores; None in most virtual machines, which have none."""
    found = {_text(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(filter(None, found))) or None


def _temperature(root: Path) -> float | None:
    """Return the temperature of the hottest zone: small computers slow down when they are hot."""
    found: Iterable[str | None] = (_text(path) for path in root.glob("sys/class/thermal/thermal_zone*/temp"))
    return max((int(text) / 1000 for text in found if text and text.lstrip("-").isdigit()), default=None)
