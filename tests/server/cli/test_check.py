"""The command `check`: each fault has its line and its exit status."""

import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.model import OptionError
from server.cli import main
from server.cli.exit_status import ExitStatus
from server.cli.serve import check_mcp
from server.config.config import Config
from tests.support import model_files

FAULTS: list[tuple[list[str], ExitStatus, str]] = [
    ([], ExitStatus.OK, "ok      model: model.gguf would run by llamacpp"),
    (["--host", "0.0.0.0"], ExitStatus.EXPOSED, "failed  address: 0.0.0.0 is reachable from other machines"),
    (["--host", "0.0.0.0", "--insecure", "true"], ExitStatus.OK, "ok      address: 0.0.0.0 port 0 is free"),
    (["--host", "192.0.2.1"], ExitStatus.NETWORK, "failed  address: cannot listen on 192.0.2.1 port 0"),
    (["--api-key-file", "/none"], ExitStatus.USAGE, "failed  keys: /none cannot be read: No such file or directory"),
    (
        ["--ssl-certfile", "/none"],
        ExitStatus.USAGE,
        "failed  certificate: /none cannot be read: No such file or directory",
    ),
    (["--allow-mcp", "http://127.0.0.1:9/mcp"], ExitStatus.OK, "ok      mcp: 1 servers are allowed"),
    (["--model", "/none.gguf"], ExitStatus.MODEL, "failed  model: there is no file and no model '/none.gguf'"),
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
    assert all(re.match(r"(ok|failed)  +(keys|certificate|mcp|address|model|state|store): ", each) for each in lines)


def test_check_of_mcp_servers_without_their_package_raises() -> None:
    config = Config(allow_mcp=("http://127.0.0.1:9/mcp",))
    check_mcp(config)
    check_mcp(Config(), "no_such_package")
    with pytest.raises(OptionError, match="need the package no_such_package: install it with pip"):
        check_mcp(config, "no_such_package")


def test_check_of_a_taken_port_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ["--model", str(model), "--port", port, "--state-dir", str(tmp_path)]
        assert main(["check", *flags]) == ExitStatus.NETWORK
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in capsys.readouterr().out
