"""Cores, memory and CPU features, read from folders that look like Linux's."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from engine.loader import machine

GB = 1 << 30
AFFINITY = len(os.sched_getaffinity(0))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2, V1 = "0::/a/b\n", "4:memory:/box\n3:cpuset:/\n2:cpu,cpuacct:/box\n0::/\n"
QUOTAS: list[tuple[str, dict[str, str], int]] = [
    ("no cgroup file", {}, 4),
    ("v2, no limit", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 4),
    ("v2, two cores", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"}, 2),
    ("v2, a part of a core is one more", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
    ("v2, less than a core", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "20000 100000\n"}, 1),
    ("v2, more than the affinity", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "900000 100000\n"}, 4),
    ("v2, of the parent", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                           "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
    ("v2, in a container", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
    ("v2, a path from outside", {"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
    ("v1, no limit", {"proc/self/cgroup": V1, "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "-1\n",
                      "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"}, 4),
    ("v1, two cores", {"proc/self/cgroup": V1, "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "100000\n",
                       "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "50000\n"}, 2),
    ("v1, mounted as cpu", {"proc/self/cgroup": "1:cpu:/box\n", "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "100000\n",
                            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n"}, 1),
    ("v1, a container's own mount", {"proc/self/cgroup": "1:cpu:/docker/1\n",
                                     "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                                     "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("files", "expected"), [row[1:] for row in QUOTAS], ids=[row[0] for row in QUOTAS])
def test_cores_under_a_cpu_quota_equal_the_quota(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert machine.cores(tree(tmp_path, files)) == expected


CPU = "sys/devices/system/cpu/cpu"
ARM = {f"{CPU}{n}/cpu_capacity": f"{capacity}\n" for n, capacity in enumerate([414, 414, 1024, 1024])}
PRIME = {f"{CPU}{n}/cpu_capacity": f"{capacity}\n" for n, capacity in enumerate([325, 806, 806, 1024])}
COMPACT = {
    f"{CPU}{n}/cpufreq/cpuinfo_max_freq": f"{khz}\n" for n, khz in enumerate([5100000, 5090000, 3300000, 3300000])
}
SMT = {f"{CPU}{n}/topology/thread_siblings_list": f"{pair}\n" for n, pair in enumerate(["0-1", "0-1", "2-3", "2-3"])}
SPLIT = {f"{CPU}{n}/topology/thread_siblings_list": f"{pair}\n" for n, pair in enumerate(["0,4", "1,5", "2,6", "3,7"])}
HYBRID = {"sys/devices/cpu_core/cpus": "0-2\n", "sys/devices/cpu_atom/cpus": "3-9\n"}
TOPOLOGIES: list[tuple[str, dict[str, str], set[int], int]] = [
    ("nothing known", {}, {0, 1, 2, 3}, 4),
    ("a core bound", {}, {2}, 1),
    ("Arm, two kinds", ARM, {0, 1, 2, 3}, 2),
    ("Arm, efficiency cores only", ARM, {0, 1}, 2),
    ("Arm, three kinds", PRIME, {0, 1, 2, 3}, 3),
    ("Arm, equal", {f"{CPU}{n}/cpu_capacity": "1024\n" for n in range(4)}, {0, 1, 2, 3}, 4),
    ("AMD, compact cores", COMPACT, {0, 1, 2, 3}, 2),
    ("capacity of some only", {f"{CPU}0/cpu_capacity": "1024\n"}, {0, 1}, 2),
    ("siblings", SMT, {0, 1, 2, 3}, 2),
    ("siblings outside the affinity", SPLIT, {0, 1, 2, 3}, 4),
    ("one of each pair", SMT, {1, 3}, 2),
    ("Intel, performance cores", HYBRID, {0, 1, 2, 3}, 3),
    ("Intel, efficiency cores only", HYBRID, {3, 4}, 2),
    ("Intel, siblings", HYBRID | SMT, {0, 1, 2, 3}, 2),
    ("Intel, no efficiency cores", {"sys/devices/cpu_core/cpus": "\n"}, {0, 1, 2, 3}, 4),
    ("a quota below", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "100000 100000\n"} | ARM, {0, 1, 2, 3}, 1),
    ("a quota above", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"} | ARM, {0, 1, 2, 3}, 2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "affinity", "expected"), [row[1:] for row in TOPOLOGIES], ids=[row[0] for row in TOPOLOGIES]
)
def test_fast_cores_are_the_physical_performance_cores(
    files: dict[str, str], affinity: set[int], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: affinity)
    assert machine.fast_cores(tree(tmp_path, files)) == expected


@pytest.mark.slow
def test_cores_of_a_bound_process_are_its_affinity() -> None:
    one = str(min(os.sched_getaffinity(0)))
    script = f"import os; os.sched_setaffinity(0, [{one}]); from engine.loader import machine; print(machine.cores())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


MEMINFO = "MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: 2097152 kB\nSwapFree: 1048576 kB\n"
MEMORY: list[tuple[str, dict[str, str], int, int]] = [
    ("no limit", {}, 4 * GB, 3 * GB),
    ("v2, no limit", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/memory.max": "max\n"}, 4 * GB, 3 * GB),
    ("v2", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/memory.max": f"{GB}\n",
            "sys/fs/cgroup/a/b/memory.stat": f"anon {GB // 4}\nfile {GB // 2}\n"}, GB, 3 * GB // 4),
    ("v2, of the parent", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/memory.max": f"{GB}\n"}, GB, GB),
    ("v2, more than there is", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/memory.max": f"{9 * GB}\n"}, 4 * GB, 3 * GB),
    ("v2, used up", {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/memory.max": f"{GB}\n",
                     "sys/fs/cgroup/a/b/memory.stat": f"anon {2 * GB}\n"}, GB, 0),
    ("v1", {"proc/self/cgroup": V1, "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{2 * GB}\n",
            "sys/fs/cgroup/memory/box/memory.stat": f"rss 1\ntotal_rss {GB}\n"}, 2 * GB, GB),
    ("v1, no limit", {"proc/self/cgroup": V1, "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "9223372036854771712"},
     4 * GB, 3 * GB),
]  # fmt: skip


@pytest.mark.parametrize(("files", "total", "free"), [row[1:] for row in MEMORY], ids=[row[0] for row in MEMORY])
def test_memory_under_a_limit_is_the_limit(files: dict[str, str], total: int, free: int, tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/meminfo": MEMINFO} | files)
    assert (machine.memory(root), machine.free_memory(root)) == (total, free)


@pytest.mark.parametrize(
    ("free", "cache"),
    [(100_000_000, 50_000_000), (200_000_000, 64_000_000), (2_000_000_000, 500_000_000), (10**11, 4_000_000_000)],
)
def test_prefix_cache_bytes_are_a_quarter_of_the_free_memory_within_bounds(
    free: int, cache: int, tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {10**9} kB\nMemAvailable: {free // 1024} kB\n")
    assert abs(machine.prefix_cache_bytes(tmp_path) - cache) < 1024


def test_memory_under_an_address_space_limit_is_that_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/statm": f"{GB // resource.getpagesize()} 1\n"})
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (3 * GB, before[1]))
    try:
        assert (machine.memory(root), machine.free_memory(root)) == (3 * GB, 2 * GB)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_cpu_features_name_the_machine_and_change_with_the_flags(tmp_path: Path) -> None:
    def features(cpuinfo: str) -> str:
        return machine.cpu_features(tree(tmp_path, {"proc/cpuinfo": cpuinfo}))

    plain = features("processor: 0\nflags\t\t: fpu avx avx2\n")
    assert plain == features("flags : avx2 avx fpu\n\nprocessor: 1\nflags: other\n")
    assert plain != features("flags : fpu avx\n")
    assert features("Features\t: fp asimd asimddp\n") != features("Features\t: fp asimd\n")


def test_memory_and_cores_of_this_machine_are_plausible() -> None:
    assert 1 <= machine.fast_cores() <= machine.cores() <= AFFINITY
    assert machine.free_memory() > 0
    assert machine.memory() > 64 << 20


READS: list[tuple[str, dict[str, str], int]] = [
    ("nothing is known", {}, 0),
    ("itself", {"proc/self/io": "rchar: 9\nread_bytes: 4096\nwrite_bytes: 7\n"}, 4096),
    ("its children, by any thread", {
        "proc/self/io": "read_bytes: 1\n", "proc/self/task/7/children": "21 22 \n", "proc/self/task/8/children": "23",
        "proc/21/io": "read_bytes: 10\n", "proc/22/io": "read_bytes: 100\n", "proc/23/io": "read_bytes: 1000\n",
    }, 1111),
    ("a child that has ended", {"proc/self/io": "read_bytes: 1\n", "proc/self/task/7/children": "21"}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("files", "expected"), [row[1:] for row in READS], ids=[row[0] for row in READS])
def test_bytes_read_are_those_of_the_process_and_its_children(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert machine.bytes_read(tree(tmp_path, files)) == expected


NODE = """\
Node {0} MemTotal:       1000 kB
Node {0} MemFree:         200 kB
Node {0} MemUsed:         800 kB
Node {0} Active(file):    100 kB
Node {0} Inactive(file):   50 kB
Node {0} SReclaimable:     10 kB
Node {0} HugePages_Total:     0
"""
NODES: list[tuple[str, dict[str, str], int]] = [
    ("unknown", {}, 0),
    ("one node", {"sys/devices/system/node/node0/meminfo": NODE.format(0)}, 640 << 10),
    ("two nodes", {f"sys/devices/system/node/node{n}/meminfo": NODE.format(n) for n in (0, 1)}, 1280 << 10),
]


@pytest.mark.parametrize(("files", "expected"), [row[1:] for row in NODES], ids=[row[0] for row in NODES])
def test_bytes_in_use_leave_out_the_page_cache(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert machine.bytes_in_use(tree(tmp_path, files)) == expected
