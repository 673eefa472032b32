"""The commands `install` and `uninstall`: files of ours are written, replaced and removed; others stay."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from server.cli import main
from server.cli.install import MARK
from server.config import file as config_file
from server.config.config import SETTINGS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


FILES = ["responsed/config.toml", "systemd/user/responsed.service", "systemd/user/responsed.socket"]


def test_install_writes_three_files_and_uninstall_removes_its_own(home: Path) -> None:
    assert main(["install", "--user"]) == 0
    assert sorted(contents(home)) == FILES
    (home / FILES[0]).write_text("port = 1")
    assert main(["install", "--user"]) == 0
    assert (home / FILES[0]).read_text() == "port = 1"
    assert main(["uninstall", "--user"]) == 0
    assert contents(home) == {FILES[0]: "port = 1"}


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_dry_run_changes_nothing(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "uninstall":
        assert main(["install", "--user"]) == 0
    before = contents(home)
    assert main([command, "--user", "--dry-run"]) == 0
    assert contents(home) == before
    assert f"{home}/systemd/user/responsed.service" in capsys.readouterr().out


def test_foreign_unit_is_neither_replaced_nor_removed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = home / FILES[1]
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    assert main(["install", "--user"]) == 2
    assert capsys.readouterr().err == (f"responsed: {unit} was not written by this command: move it away first\n")
    assert main(["uninstall", "--user"]) == 0
    assert unit.read_text() == "[Unit]\n"


def test_configuration_that_is_written_sets_nothing_and_names_every_setting(home: Path) -> None:
    main(["install", "--user"])
    text = (home / FILES[0]).read_text()
    assert tomllib.loads(text) == {}
    assert [key for key in (setting.key for setting in SETTINGS) if f"\n# {key} =\n" not in text] == []


def test_unit_of_the_system_is_the_packaged_one_with_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.cli.install.SYSTEM_UNITS", tmp_path / "units")
    monkeypatch.setattr(config_file, "SYSTEM", tmp_path / "etc" / "config.toml")
    assert main(["install"]) == 0
    text = (tmp_path / "units" / "responsed.service").read_text()
    assert text.startswith(MARK)
    assert "/opt/responsed" not in text
    assert "ProtectSystem=strict" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_of_a_user_is_accepted_by_systemd(home: Path) -> None:
    main(["install", "--user"])
    unit = home / FILES[1]
    command = ["systemd-analyze", "verify", "--user", "--man=no", str(unit)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"XDG_RUNTIME_DIR": str(home), "PATH": "/usr/bin"}
    )
    assert (done.returncode, done.stderr) == (0, "")
