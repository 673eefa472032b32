"""The version says its build, and the wheel carries what a type checker and systemd need."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from server.version import RELEASE, version

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "a")
    return tmp_path


@pytest.mark.slow
def test_version_of_a_commit_names_it(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "--short=7", "HEAD")
    assert version(checkout) == f"{RELEASE}+g{commit}"
    (checkout / "b").write_text("untracked files change nothing")
    assert version(checkout) == f"{RELEASE}+g{commit}"
    (checkout / "a").write_text("2")
    assert version(checkout) == f"{RELEASE}+g{commit}.changed"


def test_version_of_a_release_is_the_release(checkout: Path) -> None:
    git(checkout, "tag", f"v{RELEASE}")
    assert version(checkout) == RELEASE


def test_version_without_git_is_the_release(tmp_path: Path) -> None:
    assert version(tmp_path) == RELEASE


def test_version_in_a_source_distribution_is_what_it_was_packed_with(tmp_path: Path) -> None:
    (tmp_path / "PKG-INFO").write_text(
        "Metadata-Version: 2.4\nName: responsed\nVersion: 0.1.0+gabc1234\n\nVersion: 9\n"
    )
    assert version(tmp_path) == "0.1.0+gabc1234"


@pytest.mark.slow
def test_wheel_has_types_unit_and_version(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("engine", "server", "bench"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        found = re.findall(r"^Version: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
    packaged = {"engine/py.typed", "server/py.typed", "server/systemd/responsed.service", "server/page/index.html"}
    assert packaged <= names
    assert {"server/bench/run.py", "server/bench/apis/chat.py", "server/bench/reports/style.css"} <= names
    assert found[:1] == [RELEASE]
    assert {name.partition("/")[0] for name in names} == {"engine", "server", f"responsed-{RELEASE}.dist-info"}
    assert list(ROOT.glob("server/**/*.md"))
    assert [name for name in names if name.endswith(".md")] == []
