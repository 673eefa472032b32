"""Marks of running servers, and what the next start says of an abnormal end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.systemd.last_run import PREFIX, SYSTEMD_RESULT, RunMark, cause, marked, report_ends
from tests.support.processes import ROOT

MARK = RunMark(7, "2026-11-27T01:00:00Z", True, "boot-1", 3)

CAUSES = [
    ("boot-1", 3, "", ""),
    ("boot-1", 4, "", "the kernel's OOM killer ended 1 process since"),
    ("boot-1", 2, "", ""),
    ("boot-1", None, "", ""),
    ("", 3, "", ""),
    ("boot-2", 0, "", "the machine has started again since"),
    ("boot-1", 3, "oom-kill killed KILL\n", "the kernel's OOM killer has ended it"),
    ("boot-1", 3, "signal killed KILL\n", "signal KILL"),
    ("boot-1", 3, "core-dump dumped SEGV\n", "signal SEGV"),
    ("boot-1", 3, "watchdog killed ABRT\n", "systemd has ended it, since it gave no sign of life"),
    ("boot-1", 3, "timeout killed KILL\n", "systemd has ended it, since it did not start or stop in time"),
    ("boot-1", 3, "success exited 0\n", ""),
    ("boot-1", 3, "exit-code exited 5\n", ""),
    ("boot-2", 9, "signal killed KILL\n", "signal KILL"),
    ("boot-1", 3, "garbage", ""),
]


@pytest.mark.parametrize(("boot", "oom_kills", "result", "expected"), CAUSES)
def test_cause_of_an_end_is_the_kernels_or_systemds(
    boot: str, oom_kills: int | None, result: str, expected: str
) -> None:
    assert cause(MARK, boot, oom_kills, result) == expected


def killed(folder: Path, serving: bool) -> int:
    """Let a process die within its mark, and return its number."""
    code = (
        "import os, signal, sys; from pathlib import Path; from server.systemd import marked\n"
        f"with marked(Path(sys.argv[1]), {serving}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT)
    process.wait()
    return process.pid


@pytest.mark.slow
def test_server_that_was_killed_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pid = killed(tmp_path, serving=True)
    (tmp_path / SYSTEMD_RESULT).write_text("oom-kill killed KILL\n")
    report_ends(tmp_path)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"the last run (process {pid}, since 20")
    assert line.endswith(") ended abnormally: the kernel's OOM killer has ended it")
    assert list(tmp_path.iterdir()) == []
    caplog.clear()
    report_ends(tmp_path)
    assert caplog.text == ""


@pytest.mark.slow
def test_server_that_was_ended_while_it_loaded_is_reported_with_a_reason_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed(tmp_path, serving=False)
    report_ends(tmp_path)
    assert caplog.text == ""
    killed(tmp_path, serving=False)
    (tmp_path / SYSTEMD_RESULT).write_text("signal killed KILL\n")
    report_ends(tmp_path)
    assert "ended abnormally: signal KILL" in caplog.text


def test_running_and_ended_servers_are_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with marked(tmp_path):
        (mark,) = tmp_path.iterdir()
        assert (mark.name, mark.stat().st_mode & 0o777) == (f"{PREFIX}{os.getpid()}.json", 0o600)
        report_ends(tmp_path)
        assert mark.exists()
    with pytest.raises(ValueError, match="a fault"), marked(tmp_path):
        raise ValueError("a fault")
    report_ends(tmp_path)
    (tmp_path / SYSTEMD_RESULT).write_text("success exited 0\n")
    (tmp_path / f"{PREFIX}1.json").write_text("no mark")
    report_ends(tmp_path)
    assert (caplog.text, list(tmp_path.iterdir())) == ("", [])


def test_folder_that_is_missing_has_no_marks(tmp_path: Path) -> None:
    with marked(tmp_path / "missing"):
        report_ends(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
