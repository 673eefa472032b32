"""The command `check`: each fault has its line and its exit status."""

import re
import socket
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.model import OptionError
from server.cli import main
from server.cli.console.exit_status import ExitStatus
from server.cli.running import advertised
from server.cli.serve import check_database, check_mcp
from server.cli.store import store_place
from server.config.config import Config
from server.config.file import ConfigError
from server.listening.sockets import listening_sockets
from server.store.errors import StoreError
from server.store.locations import PostgresURL, open_database
from tests.server.store.cluster import Cluster
from tests.support import model_files

FAULTS: list[tuple[list[str], ExitStatus, str]] = [
    ([], ExitStatus.OK, "ok      model: model.gguf would run by llamacpp"),
    ([], ExitStatus.OK, "ok      keys: there are none, so anybody who reaches the address may call"),
    ([], ExitStatus.OK, "ok      certificate: there is none, so connections are not encrypted"),
    (["--store", "off"], ExitStatus.OK, "ok      store: responses are not stored"),
    (["--host", "0.0.0.0"], ExitStatus.EXPOSED, "failed  address: 0.0.0.0 is reachable from other machines"),
    (["--host", "0.0.0.0", "--insecure", "true"], ExitStatus.OK, "ok      address: 0.0.0.0 port 0 is free"),
    (["--host", "192.0.2.1"], ExitStatus.NETWORK, "failed  address: cannot listen on 192.0.2.1 port 0"),
    (["--api-key-file", "/none"], ExitStatus.USAGE, "failed  keys: --api-key-file: /none cannot be read: No such file"),
    (
        ["--ssl-certfile", "/none"],
        ExitStatus.USAGE,
        "failed  certificate: --ssl-certfile: /none cannot be read: No such file",
    ),
    (["--allow-mcp", "http://127.0.0.1:9/mcp"], ExitStatus.OK, "ok      mcp: 1 server allowed"),
    (
        ["--store", "postgresql://127.0.0.1:1/x"],
        ExitStatus.RESOURCES,
        "failed  store: postgresql://127.0.0.1:1/x: connection failed: ",
    ),
    (["--model", "/none.gguf"], ExitStatus.MODEL, "failed  model: there is no file and no model '/none.gguf'"),
    (["--model", "/"], ExitStatus.MODEL, "failed  model: '/' is a folder; name a .gguf file in it (it has none)"),
    (
        ["--model", "/none.gguf", "--state-dir", "/proc/1/x"],
        ExitStatus.RESOURCES,
        "failed  model: there is no file and no model '/none.gguf'",
    ),
    (
        ["--store", "postgresql://127.0.0.1:1/x", "--host", "0.0.0.0", "--insecure", "true"],
        ExitStatus.USAGE,
        "failed  address: name the URL at which other servers on the database reach this one: --advertise",
    ),
    (["--prewarm", "/none"], ExitStatus.USAGE, "failed  prewarm: --prewarm: /none cannot be read: No such file"),
    (["--prewarm", __file__], ExitStatus.OK, "ok      prewarm: 1 file readable"),
    (["--chat-template", "/none"], ExitStatus.USAGE, "failed  model: --chat-template /none cannot be read (No such"),
    (["--threads", "1000"], ExitStatus.USAGE, "failed  model: 1000 threads on"),
    (["--state-dir", "/proc/1/x"], ExitStatus.RESOURCES, "failed  state: --state-dir /proc/1/x cannot be written"),
    (
        ["--host", "0.0.0.0", "--state-dir", "/proc/1/x"],
        ExitStatus.EXPOSED,
        "failed  state: --state-dir /proc/1/x cannot be written",
    ),
]


@pytest.mark.parametrize(("flags", "status", "line"), FAULTS)
def test_check_names_each_fault_and_returns_the_status_of_serve(
    flags: Sequence[str], status: ExitStatus, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    defaults = ["--model", str(model), "--port", "0", "--state-dir", str(tmp_path / "state")]
    assert main(["check", *defaults, *flags]) == status
    lines = capsys.readouterr().out.splitlines()
    assert any(each.startswith(line) for each in lines), lines
    assert all(
        re.match(r"(ok|warning|failed) +(prewarm|keys|certificate|mcp|address|model|state|store): ", each)
        for each in lines
    )


def test_check_of_a_default_state_folder_that_cannot_be_written_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve` starts, and stores nothing."""
    model = model_files.spm(tmp_path / "model.gguf")
    monkeypatch.setenv("XDG_STATE_HOME", str(model))
    assert main(["check", "--model", str(model), "--port", "0"]) == ExitStatus.OK
    lines = [each for each in capsys.readouterr().out.splitlines() if "state: " in each]
    assert lines == [
        (
            f"warning state: --state-dir {model}/responsed cannot be written (Not a directory): "
            "name a folder that you may write to"
        )
    ]


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()


@pytest.mark.parametrize(
    ("name", "prepare", "fault"),
    [
        ("photos.db", foreign, " is not a file of responsed; choose another file with --store"),
        (
            "letter.txt",
            lambda path: path.write_text("Dear Ann"),
            " is not a file of responsed; choose another file with --store",
        ),
        (
            "folder",
            Path.mkdir,
            " (Is a directory) cannot be written; check the permissions, or choose another file with --store",
        ),
        (
            "file/new.db",
            lambda path: path.parent.write_text(""),
            " (File exists) cannot be written; check the permissions, or choose another file with --store",
        ),
    ],
)
def test_check_of_a_file_with_which_serve_stores_nothing_warns(
    name: str, prepare: Callable[[Path], object], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, store = model_files.spm(tmp_path / "model.gguf"), tmp_path / name
    prepare(store)
    command = ["check", "--model", str(model), "--port", "0", "--state-dir", str(tmp_path), "--store", str(store)]
    assert main(command) == ExitStatus.OK
    lines = [each for each in capsys.readouterr().out.splitlines() if "store: " in each]
    assert lines == [f"warning store: {store}{fault}"]
    with pytest.raises(StoreError, match=re.escape(fault)):  # as `serve` does
        open_database(store)


def test_check_of_wrong_keys_names_the_fault_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    command = ["check", "--model", str(model), "--port", "0", "--state-dir", str(tmp_path), "--api-key-file", "/none"]
    assert main(command) == ExitStatus.USAGE
    assert capsys.readouterr().out.count("failed  ") == 1


def test_check_of_a_disk_with_less_room_than_the_limits_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve` starts, and evicts or writes no snapshots when the disk is full."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=191_000_000))
    model = model_files.spm(tmp_path / "model.gguf")
    assert main(["check", "--model", str(model), "--port", "0", "--state-dir", str(tmp_path)]) == ExitStatus.OK
    assert f"warning state: {tmp_path} has 191 MB free, and the limits allow 192 MB" in capsys.readouterr().out


def test_check_of_mcp_servers_without_their_package_raises() -> None:
    config = Config(allow_mcp=("http://127.0.0.1:9/mcp",))
    check_mcp(config)
    check_mcp(Config(), "no_such_package")
    with pytest.raises(OptionError, match="need the package no_such_package: install it with pip"):
        check_mcp(config, "no_such_package")


def test_check_of_a_database_without_its_package_raises() -> None:
    config = Config(store="postgresql://db/x")
    check_database(config)
    check_database(Config(), "no_such_package")
    with pytest.raises(OptionError, match=r"needs the package no_such_package: .* pip install 'responsed\[postgres\]'"):
        check_database(config, "no_such_package")


@pytest.mark.slow
def test_check_of_a_database_counts_its_entries(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, place = model_files.spm(tmp_path / "model.gguf"), cluster.create()
    command = ["check", "--model", str(model), "--port", "0", "--state-dir", str(tmp_path), "--store", place.url]
    assert main(command) == ExitStatus.OK
    open_database(place).close()
    assert main(command) == ExitStatus.OK
    lines = [each for each in capsys.readouterr().out.splitlines() if "store: " in each]
    assert lines == [
        f"ok      store: {place}: the tables are missing; start the server, which makes them",
        f"ok      store: {place} has 0 entries",
    ]


def test_password_of_a_database_is_read_from_the_credential(tmp_path: Path) -> None:
    config = Config(store="postgresql://db/x")
    assert store_place(config, {}) == PostgresURL("postgresql://db/x")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert store_place(config, environ) == PostgresURL("postgresql://db/x")
    (tmp_path / "postgres-password").write_text("secret\n")
    assert store_place(config, environ) == PostgresURL("postgresql://db/x", "secret")


@pytest.mark.parametrize(
    ("hosts", "encrypted", "url"),
    [
        (["127.0.0.1"], False, "http://127.0.0.1:{port}"),
        (["unix:{folder}/s", "::1"], True, "https://[::1]:{port}"),
        (["0.0.0.0"], False, None),
        (["unix:{folder}/s"], False, None),
    ],
)
def test_advertised_url_is_that_of_the_first_address(
    hosts: list[str], encrypted: bool, url: str | None, tmp_path: Path
) -> None:
    with listening_sockets([each.format(folder=tmp_path) for each in hosts], 0, {}) as listening:
        assert advertised(Config(advertise="http://me:1/"), listening, encrypted) == "http://me:1"
        if url is None:
            with pytest.raises(ConfigError, match="--advertise http://HOST:PORT"):
                advertised(Config(), listening, encrypted)
        else:
            assert advertised(Config(), listening, encrypted) == url.format(port=listening.port)


def test_check_of_a_taken_port_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ["--model", str(model), "--port", port, "--state-dir", str(tmp_path)]
        assert main(["check", *flags]) == ExitStatus.NETWORK
    remedy = "choose another --port, or stop the program that listens there"
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; {remedy}" in capsys.readouterr().out
