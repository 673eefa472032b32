"""The facts of machines and servers, read from files as Linux has them, and the signs of other work."""

import os
from pathlib import Path
from typing import Any

import pytest
from environment import OtherWorkWatch, is_local, machine, server
from environment.other_work import CpuTimes, cpu_times, process_seconds, sentences

PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
    "proc/meminfo": "MemTotal:        8245700 kB\nMemFree: 1 kB\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/temp": "61250\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
}
PC = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) N100\n\nprocessor\t: 1\nmodel name\t: Intel(R) N100\n",
    "sys/class/dmi/id/sys_vendor": "Beelink\n",
    "sys/class/dmi/id/product_name": "EQ12\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            PI,
            {
                "computer": "Raspberry Pi 5 Model B Rev 1.0",
                "cpu": "CPU part 0xd0b",
                "governor": "ondemand",
                "temperature_c": 61.25,
                "memory_mb": 8052,
                "system": "Debian GNU/Linux 12 (bookworm)",
            },
        ),
        (
            PC,
            {
                "computer": "Beelink EQ12",
                "cpu": "Intel(R) N100",
                "governor": "performance, powersave",
                "temperature_c": None,
                "memory_mb": None,
                "system": None,
            },
        ),
    ],
)
def test_machine_reads_its_facts(tmp_path: Path, files: dict[str, str], expected: dict[str, Any]) -> None:
    found = machine(tree(tmp_path, files))
    assert {name: found[name] for name in expected} == expected
    assert found["cores"] == os.cpu_count()
    assert found["date"].endswith("+00:00")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({}, {"version": None, "engine": None, "model_hash": None, "model": {}}),
        (
            {
                "/version": {"version": "0.1.0", "engine": "llamacpp", "model": "tiny"},
                "/v1/models": {"data": [{"id": "other"}, {"id": "tiny", "meta": {"n_ctx": 2048, "sha256": "ab"}}]},
            },
            {
                "version": "0.1.0",
                "engine": "llamacpp",
                "model_hash": "ab",
                "model": {"id": "tiny", "n_ctx": 2048, "sha256": "ab"},
            },
        ),
        (
            {"/props": {"build_info": "b6000-abc"}, "/v1/models": {"data": [{"id": "tiny", "meta": None}]}},
            {"version": "b6000-abc", "engine": None, "model_hash": None, "model": {"id": "tiny"}},
        ),
        (
            {"/version": [], "/v1/models": {"data": {}}},
            {"version": None, "engine": None, "model_hash": None, "model": {}},
        ),
    ],
)
def test_server_facts_are_those_that_it_reports(paths: dict[str, Any], expected: dict[str, Any]) -> None:
    assert server(paths.get, "tiny") == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:1/v1", True),
        ("http://[::1]:8080", True),
        ("unix:/run/responsed.sock", True),
        ("https://box.example/v1", False),
        ("http://192.168.1.7:8080", False),
    ],
)
def test_url_of_this_machine_is_local(url: str, expected: bool) -> None:
    assert is_local(url) is expected


def test_cpu_times_are_those_of_proc_stat(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    line = " ".join(str(each * tick) for each in (10, 20, 30, 100, 5, 1, 2, 7, 0, 0))
    assert cpu_times(tree(tmp_path, {"proc/stat": f"cpu  {line}\ncpu0 1 2 3\n"})) == CpuTimes(175.0, 63.0, 7.0)
    assert cpu_times(tmp_path / "none") is None


def test_process_seconds_include_descendants(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")

    def stat(pid: int, parent: int, seconds: int) -> dict[str, str]:
        fields = f"S {parent} 1 1 0 -1 0 0 0 0 0 {seconds * tick} {seconds * tick} 0 0"
        return {f"proc/{pid}/stat": f"{pid} (a) b) {fields}"}

    tree(tmp_path, stat(5, 1, 1) | stat(6, 5, 2) | stat(7, 6, 4) | stat(8, 1, 100))
    assert sum(process_seconds(tmp_path, [5])) == 14.0
    assert process_seconds(tmp_path, [9]) == []


QUIET = {
    "load_average": [0.1, 0.2, 0.3],
    "busy_before": 0.01,
    "waiting_before": 0.0,
    "stolen_during": 0.0,
    "others_during": None,
}


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ({}, []),
        ({"busy_before": 0.435}, ["before the run, other programs used 44% of all cores"]),
        ({"waiting_before": 0.2}, ["before the run, processes waited for a core 20% of the time"]),
        ({"busy_before": None, "load_average": [3.5, 1, 1]}, ["before the run, the load average was 3.5 on 2 cores"]),
        ({"load_average": [3.5, 1, 1]}, []),  # an earlier run of the bench raises it for minutes
        ({"others_during": 0.25}, ["during the run, other programs used 25% of all cores"]),
        ({"stolen_during": 0.07}, ["during the run, the host took 7% of all cores (steal)"]),
        ({"busy_before": None, "waiting_before": None, "stolen_during": None, "load_average": None}, []),
    ],
)
def test_busy_machine_is_described_by_sentences(signs: dict[str, Any], expected: list[str]) -> None:
    assert sentences(QUIET | signs, cores=2) == expected


def test_watch_reports_changes_between_its_start_and_its_report(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    files = {"proc/stat": "cpu 0 0 0 0 0 0 0 0 0 0\n", "proc/pressure/cpu": "some avg10=9.00 total=5\nfull total=0\n"}
    watch = OtherWorkWatch(tree(tmp_path, files), sample_seconds=0.0)
    watch.add([5])
    numbers = [400 * tick, 0, 0, 500 * tick, 0, 0, 0, 100 * tick, 0, 0]
    own = {"proc/5/stat": f"5 (server) S 1 1 1 0 -1 0 0 0 0 0 {150 * tick} 0 0 0"}
    tree(tmp_path, own | {"proc/stat": "cpu " + " ".join(map(str, numbers)) + "\n"})
    found = watch.report()
    assert (found["busy_before"], found["waiting_before"], found["stolen_during"]) == (None, 0.0, 0.1)
    assert 0.2 < found["others_during"] <= 0.25  # the bench's own CPU time is not that of others
    assert found["busy"][-2:] == [
        "during the run, other programs used 25% of all cores",
        "during the run, the host took 10% of all cores (steal)",
    ]


def test_watch_without_proc_reports_no_shares(tmp_path: Path) -> None:
    found = OtherWorkWatch(tmp_path, sample_seconds=0.0).report()
    assert [found[name] for name in ("busy_before", "waiting_before", "stolen_during", "others_during")] == [None] * 4
