"""The machine as this process may use it: cores, memory and CPU features.

A container's limits are those of its cgroup and of all cgroups above it. `root` stands for `/` (tests pass another
folder).
"""

import hashlib
import math
import os
import platform
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from engine.platform import instruction_sets

ROOT = Path("/")
MIN_CACHE_BYTES = 64_000_000
"""Least bytes of a prefix cache by default, unless that is more than half of what is free."""
MAX_CACHE_BYTES = 4_000_000_000
"""Most bytes of a prefix cache by default."""
MIN_SPEED_RATIO = 0.7
"""Smallest ratio of a performance core's speed to the fastest core's. (Kinds of performance cores: 0.78 and more; an
Arm A55 beside an A76: 0.4; AMD's compact cores: 0.65.)"""


def cores(root: Path = ROOT) -> int:
    """Return the number of cores this process may use: its CPU affinity, or less if its cgroups grant less CPU time."""
    quota = min(_cpu_quotas(root), default=math.inf)
    allowed = len(os.sched_getaffinity(0))
    return max(1, allowed if quota >= allowed else math.ceil(quota))


def fast_cores(root: Path = ROOT) -> int:
    """Return the number of cores for threads that wait for each other, at most `cores`.

    Efficiency cores are left out, since all threads would wait for them; the siblings of one core count once.
    """
    fast = _performance_cores(root, os.sched_getaffinity(0))
    siblings = {number: _cpu_list(_cpu(root, number) / "topology/thread_siblings_list") & fast for number in fast}
    physical = {min(siblings[number] or {number}) for number in fast}
    return min(len(physical), cores(root))


def memory(root: Path = ROOT) -> int:
    """Return the bytes of memory that this process could use if all other processes freed theirs."""
    total = _meminfo(root).get("MemTotal", 0) or _unlimited()
    return min(total, _address_space(), *_memory_limits(root))


def free_memory(root: Path = ROOT) -> int:
    """Return the bytes that can be allocated now, including swap. The page cache counts as free."""
    info = _meminfo(root)
    free = info.get("MemAvailable", _unlimited()) + info.get("SwapFree", 0)
    return max(0, min(free, _address_space() - _mapped(root), *_memory_left(root)))


def resident(root: Path = ROOT) -> int:
    """Return the bytes of memory that this process has."""
    pages = _text(root / "proc/self/statm").split()
    return int(pages[1]) * resource.getpagesize() if pages else 0


def bytes_read(root: Path = ROOT) -> int:
    """Return the bytes that this process and its running children have read from disks, also through mapped files."""
    own = root / "proc/self"
    children = [number for task in own.glob("task/*") for number in _text(task / "children").split()]
    return sum(_read_bytes(folder) for folder in (own, *(root / "proc" / number for number in children)))


def prefix_cache_bytes(root: Path = ROOT, reserved: int = 0) -> int:
    """Return the bytes of memory that a prefix cache may use by default, once the model is loaded. `reserved` bytes are
    for a model that is not loaded yet, or for its empty contexts."""
    free = max(0, free_memory(root) - reserved)
    return min(max(free // 4, MIN_CACHE_BYTES), MAX_CACHE_BYTES, free // 2)


def cpu_features(root: Path = ROOT) -> str:
    """Return a short fingerprint of the CPU's features: another CPU may crash on the same library."""
    names = " ".join(sorted(instruction_sets(root / "proc/cpuinfo")))
    return f"{platform.machine()}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"


def _performance_cores(root: Path, allowed: set[int]) -> set[int]:
    """Return the allowed cores of the fastest kind; all if the kernel reports no kinds."""
    if fast := _cpu_list(root / "sys/devices/cpu_core/cpus") & allowed:  # Intel; the others are in cpu_atom
        return fast
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {number: _number(_cpu(root, number) / file) for number in allowed}
        if all(speeds.values()):
            return {number for number, speed in speeds.items() if speed >= MIN_SPEED_RATIO * max(speeds.values())}
    return allowed


def _cpu(root: Path, number: int) -> Path:
    return root / f"sys/devices/system/cpu/cpu{number}"


def _cpu_list(file: Path) -> set[int]:
    """Return the numbers of a list such as "0-3,8"; none if the file is missing."""
    ranges = (part.split("-") for part in _text(file).strip().split(",") if part)
    return {number for first, *last in ranges for number in range(int(first), int((last or [first])[0]) + 1)}


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the limits on CPU time, in cores."""
    for folder in _cgroups(root, ""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and int(period):
            yield int(quota) / int(period)
    for folder in _cgroups(root, "cpu"):
        granted, each = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if granted and each:
            yield granted / each


def _memory_limits(root: Path) -> Iterator[int]:
    """Yield the cgroups' memory limits, in bytes."""
    for limit, _ in _memory_cgroups(root):
        yield limit


def _memory_left(root: Path) -> Iterator[int]:
    """Yield the unused bytes under each memory limit."""
    for limit, used in _memory_cgroups(root):
        yield limit - used


def _memory_cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, anonymous memory in use) in bytes; the kernel frees a cgroup's page cache on demand."""
    for folder in _cgroups(root, ""):
        if limit := _number(folder / "memory.max"):
            yield limit, _stat(folder, "anon")
    for folder in _cgroups(root, "memory"):
        if limit := _number(folder / "memory.limit_in_bytes"):
            yield limit, _stat(folder, "total_rss")


def _stat(folder: Path, key: str) -> int:
    """Return a value of `memory.stat`; 0 if it is missing."""
    lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return next((int(words[1]) for words in lines if words[:1] == [key]), 0)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and its parents; cgroup version 2 if `controller` is empty."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / (controllers if controller else "")
            mount = mount if mount.is_dir() else root / "sys/fs/cgroup" / controller
            own = mount / path.lstrip("/")
            # In a container the mount may be its own cgroup, while the path exists only outside.
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _meminfo(root: Path) -> dict[str, int]:
    """Return the values of /proc/meminfo, in bytes."""
    rows = (line.split() for line in _text(root / "proc/meminfo").splitlines())
    values = {row[0].rstrip(":"): int(row[1]) << 10 for row in rows if len(row) > 1 and row[1].isdecimal()}
    if not values and root == ROOT:  # systemd's `ProcSubset=pid` hides the file
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {"MemTotal": total, "MemAvailable": max(0, total - bytes_in_use(root))}
    return values


def bytes_in_use(root: Path = ROOT) -> int:
    """Return the bytes of memory that all processes and the kernel use, without the page cache; 0 if it is unknown.
    Unlike /proc/meminfo, the files of the memory nodes are visible in the sandbox of the unit."""
    values: Counter[str] = Counter()
    for node in root.glob("sys/devices/system/node/node*/meminfo"):
        for _, _, name, number, *_ in map(str.split, _text(node).splitlines()):
            values[name.rstrip(":")] += int(number) << 10
    cached = values["Active(file)"] + values["Inactive(file)"] + values["SReclaimable"]
    return max(0, values["MemUsed"] - cached)


def _read_bytes(process: Path) -> int:
    lines = (line.partition(": ") for line in _text(process / "io").splitlines())
    return next((int(value) for name, _, value in lines if name == "read_bytes"), 0)


def _address_space() -> int:
    """Return the limit on this process's address space, in bytes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return _unlimited() if soft == resource.RLIM_INFINITY else soft


def _mapped(root: Path) -> int:
    """Return the bytes of address space in use."""
    pages = _text(root / "proc/self/statm").split()
    return int(pages[0]) * resource.getpagesize() if pages else 0


def _unlimited() -> int:
    """Return the value that stands for no limit."""
    return 1 << 62


def _number(file: Path) -> int:
    """Return the number in a file; 0 if the file is missing or contains "max" or -1."""
    text = _text(file).strip()
    return int(text) if text.isdecimal() else 0


def _text(file: Path) -> str:
    """Return a file's text; empty if it cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
