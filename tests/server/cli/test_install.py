"""The commands `install` and `uninstall`: files of ours are written, replaced and removed; others stay."""

import argparse
import math
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest

from engine import gguf
from engine.loader import catalog, footprint
from engine.model import BackendOptions
from server.cli import main, tune
from server.cli.install import MARK
from server.config import file as config_file
from server.config.groups import SETTINGS
from tests.support import model_files


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "c"  # a short path: systemd's sockets below it have no longer ones
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


FILES = ["responsed/config.toml", "systemd/user/responsed.service", "systemd/user/responsed.socket"]


@pytest.mark.slow
def test_install_writes_three_files_and_uninstall_removes_its_own(home: Path) -> None:
    assert main(["install", "--user"]) == 0
    assert sorted(contents(home)) == FILES
    (home / FILES[0]).write_text("port = 1")
    assert main(["install", "--user"]) == 0
    assert (home / FILES[0]).read_text() == "port = 1"
    assert main(["uninstall", "--user"]) == 0
    assert contents(home) == {FILES[0]: "port = 1"}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_dry_run_changes_nothing(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "uninstall":
        assert main(["install", "--user"]) == 0
    before = contents(home)
    assert main([command, "--user", "--dry-run"]) == 0
    assert contents(home) == before
    assert f"{home}/systemd/user/responsed.service" in capsys.readouterr().out


@pytest.mark.slow
def test_foreign_unit_is_neither_replaced_nor_removed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = home / FILES[1]
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    assert main(["install", "--user"]) == 2
    assert capsys.readouterr().err == (f"responsed: {unit} was not written by this command: move it away first\n")
    assert main(["uninstall", "--user"]) == 0
    assert unit.read_text() == "[Unit]\n"


@pytest.mark.slow
def test_configuration_that_is_written_sets_nothing_and_names_every_setting(home: Path) -> None:
    main(["install", "--user"])
    text = (home / FILES[0]).read_text()
    assert tomllib.loads(text) == {}
    assert [key for key in (setting.key for setting in SETTINGS) if f"\n# {key} =\n" not in text] == []


@pytest.mark.slow
def test_unit_of_the_system_is_the_packaged_one_with_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.cli.install.SYSTEM_UNITS", tmp_path / "units")
    monkeypatch.setattr("server.cli.install.READABLE", ("/",))
    monkeypatch.setattr(config_file, "SYSTEM", tmp_path / "etc" / "config.toml")
    before = os.umask(0o077)
    try:
        assert main(["install"]) == 0
    finally:
        os.umask(before)
    config = tmp_path / "etc" / "config.toml"
    assert (config.stat().st_mode & 0o777, config.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    text = (tmp_path / "units" / "responsed.service").read_text()
    assert text.startswith(MARK)
    assert "/opt/responsed" not in text
    assert "ProtectSystem=strict" in text


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
@pytest.mark.parametrize("folder", ["/home/ann/venv", "/root/.local", "/srv/responsed"])
def test_program_that_the_service_cannot_read_is_not_installed(
    folder: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.executable", f"{folder}/bin/python")
    assert main(["install", *flags]) == 2
    assert capsys.readouterr().err.startswith(
        f"responsed: the service cannot read {folder}/bin: install responsed into /opt/responsed with the system's"
    )


SIZES = [
    ({"cache_megabytes": 0}, 0),
    ({"cache_megabytes": 100}, 100_000_000),
    ({"slots": 4, "context": 128, "cache_megabytes": 0}, 0),
]


@pytest.mark.parametrize(("values", "cache"), SIZES)
def test_unit_has_limits_of_memory_for_the_model_and_its_settings(
    values: dict[str, int], cache: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESPONSED_SLOTS", "64")  # the service has no such variable
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("engine.loader.machine.resident", lambda: 60_000_000)
    folder = tmp_path / "responsed" / "models"
    folder.mkdir(parents=True)
    path = model_files.bpe(folder / "tiny.gguf")
    config_file.write(home / FILES[0], {"model": "tiny", **values})
    assert main(["install", "--user"]) == 0
    header, slots, n_ctx = gguf.read(path), values.get("slots", 2), values.get("context", 256)
    total = footprint.estimate(
        footprint.LoadPlan(path, header, n_ctx, slots, BackendOptions(), 60_000_000, cache)
    ).total
    lines = (home / FILES[1]).read_text().splitlines()
    place = lines.index("LimitNOFILE=4096")
    high, most = math.ceil(total * 1.1 / 2**20), math.ceil(total * 1.25 / 2**20)
    assert lines[place - 2 : place] == [f"MemoryHigh={high}M", f"MemoryMax={most}M"]


def test_unit_for_a_model_that_is_not_here_has_no_limits(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["install", "--user"]) == 0
    assert "MemoryMax=" not in (home / FILES[1]).read_text()
    assert capsys.readouterr().out.splitlines()[0] == (
        "no limits of memory: smollm2 is not here yet; once the model is here, run `responsed install` again"
    )


@pytest.mark.parametrize(
    ("user", "config", "installed", "service"),
    [(0, None, True, True), (0, None, False, False), (0, "mine.toml", True, False), (1000, None, True, False)],
)
def test_tune_writes_where_the_service_reads(
    user: int, config: str | None, installed: bool, service: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root on a machine with the service tunes the service, unless a file is named."""
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr("server.cli.install.SYSTEM_UNITS", tmp_path)
    if installed:
        (tmp_path / "responsed.service").touch()
    flags = argparse.Namespace(config=config)
    environ = tune._environ(flags, {"HOME": "/root"})
    mine = Path(config or "/root/.config/responsed/config.toml")
    folder = "/var/cache/responsed/models" if service else "/root/.cache/responsed/models"
    assert tune._target(flags, environ) == (config_file.SYSTEM if service else mine)
    assert catalog.cache_folder(environ) == Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_of_a_user_is_accepted_by_systemd(home: Path) -> None:
    main(["install", "--user"])
    unit = home / FILES[1]
    command = ["systemd-analyze", "verify", "--user", "--man=no", str(unit)]
    with tempfile.TemporaryDirectory() as folder:  # systemd's own sockets there need a short path
        variables = {"XDG_RUNTIME_DIR": folder, "PATH": "/usr/bin"}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert (done.returncode, done.stderr) == (0, "")
