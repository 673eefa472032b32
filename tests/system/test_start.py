"""`responsed serve` before it serves: signals and the current folder."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import model_files
from tests.support.certificates import DATA, certificate
from tests.support.processes import START_SECONDS, serving

pytestmark = pytest.mark.slow

INSTALLED = [sys.executable, "-P", "-m", "server"]
"""The command as it runs outside a checkout."""


@contextmanager
def starting(folder: Path, *flags: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    environ = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}
    command = [*INSTALLED, "serve", "--port", "0", *flags]
    with subprocess.Popen(command, cwd=cwd, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_begun(process: subprocess.Popen[str]) -> None:
    """Return once the program's own imports have begun: a signal before that is the interpreter's."""
    deadline = time.monotonic() + START_SECONDS
    while "/msgspec/" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.005)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7])
def test_start_at_a_signal_ends_at_once(tiny: Path, tmp_path: Path, seconds: float) -> None:
    """A model of a few kilobytes is ready after about a second; `test_faults` has the states of a large one."""
    flags = ["--model", str(tiny)]
    with starting(tmp_path / "a", *flags) as terminated, starting(tmp_path / "b", *flags) as interrupted:
        wait_begun(terminated)
        wait_begun(interrupted)
        time.sleep(seconds)  # loads modules, probes, loads, warms up, or serves: each machine has its own times
        for process, number in ((terminated, signal.SIGTERM), (interrupted, signal.SIGINT)):
            probes = children(process)
            process.send_signal(number)
            status = process.wait(10)
            assert status in (-number, 128 + number, 0), process.stderr and process.stderr.read()
            deadline = time.monotonic() + 10
            while any(map(lives, probes)):
                assert time.monotonic() < deadline, "the probe outlives its parent"
                time.sleep(0.05)


ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"


def test_server_at_sighup_reads_its_keys_and_settings_again(tiny: Path, tmp_path: Path) -> None:
    keys, config = tmp_path / "keys", tmp_path / "config.toml"
    keys.write_text(f"ann:{ANN}")
    keys.chmod(0o600)
    config.write_text(f'api_key_file = "{keys}"')
    with serving(tmp_path, "--model", str(tiny), "--config", str(config)) as daemon:

        def status(key: str, model: str) -> int:
            connection = daemon.connection()
            connection.request("GET", f"/v1/models/{model}", headers={"Authorization": f"Bearer {key}"})
            found = connection.getresponse().status
            connection.close()
            return found

        def reload(line: str) -> None:
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.message().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert daemon.message() == "READY=1"
            assert line in daemon.log.read_text()

        assert [status(ANN, "tiny"), status(BOB, "tiny"), status(ANN, "gpt")] == [200, 401, 404]
        keys.write_text(f"bob:{BOB}")
        config.write_text(f'api_key_file = "{keys}"\nalias = ["gpt"]\nslots = 4')
        reload("these settings need a restart: slots")
        assert [status(ANN, "tiny"), status(BOB, "tiny"), status(BOB, "gpt")] == [401, 200, 200]
        keys.write_text("nonsense")
        reload("the settings stay as they are: ")
        assert status(BOB, "gpt") == 200
        config.write_text("port = 0")
        reload("the API keys are gone")
        assert status("", "gpt") == 401
        daemon.process.terminate()
        assert daemon.wait() == 0


def certificate_of(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port)).strip()


def test_server_at_sighup_reads_its_certificate_again(tiny: Path, tmp_path: Path) -> None:
    found = certificate(tmp_path)
    hosts = ["--host", f"unix:{tmp_path}/socket", "--host", "127.0.0.1"]
    flags = ["--ssl-certfile", str(found.certfile), "--ssl-keyfile", str(found.keyfile), *hosts]
    with serving(tmp_path, "--model", str(tiny), *flags) as daemon:

        def reload(line: str) -> None:
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.message().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert daemon.message() == "READY=1"
            assert line in daemon.log.read_text()

        addresses = f"http://unix:{tmp_path}/socket, https://127.0.0.1:{daemon.port}"
        assert f"STATUS=listening on {addresses}" in daemon.ready
        shown = [certificate_of(daemon.port)]
        certificate(tmp_path, "second")
        reload("reloaded the settings and API keys")
        shown.append(certificate_of(daemon.port))
        found.keyfile.write_text("nonsense")
        pair = f"{found.certfile} and {found.keyfile}"
        reload(f"the settings stay as they are: {pair} are not a PEM certificate and its private key")
        shown.append(certificate_of(daemon.port))
        assert shown == [(DATA / f"{name}.crt").read_text().strip() for name in ("first", "second", "second")]


SHADOWED = ["random", "engine", "logging", "numpy", "sitecustomize", "minijinja", "pip", "subprocess", "xllamacpp"]


@pytest.mark.parametrize("pythonpath", [None, "", ":", "."])
def test_start_in_a_folder_with_python_files_runs_none_of_them(tmp_path: Path, pythonpath: str | None) -> None:
    """`pythonpath` may name the current folder, which then counts for the command itself, but for no child of it."""
    model = model_files.spm(tmp_path / "model.gguf")
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in SHADOWED if not pythonpath else []:
        (evil / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    if pythonpath:  # Python itself runs this one in the parent; in a child it would be run a second time
        (evil / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('sitecustomize ')")
    environ = os.environ | ({} if pythonpath is None else {"PYTHONPATH": pythonpath})
    environ |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "NOTIFY_SOCKET": ""}
    command = [
        *INSTALLED,
        "serve",
        "--port",
        "0",
        "--store",
        "off",
        "--kv-snapshot-megabytes",
        "0",
        "--model",
        str(model),
    ]
    with subprocess.Popen(command, cwd=evil, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "listening" in line:
                break
        process.terminate()
        process.wait(START_SECONDS)
    assert "listening" in lines[-1], "".join(lines)
    assert any("in its own process" in line for line in lines)
    ran = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
    assert ran == ("sitecustomize " if pythonpath else "")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_start_with_closed_standard_streams_serves_and_gives_their_numbers_to_no_file(
    closed: tuple[int, ...], tiny: Path, tmp_path: Path
) -> None:
    environ = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    address = tmp_path / "socket"
    flags = ["--host", f"unix:{address}", "--model", str(tiny)]
    command = f'exec "$@" {" ".join(f"{number}>&-" for number in closed)}'
    with subprocess.Popen(["sh", "-c", command, "sh", *INSTALLED, "serve", *flags], env=environ) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not is_ready(address):
                assert process.poll() is None
                assert time.monotonic() < deadline, "it takes too long"
                time.sleep(0.05)
            assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in closed} == {os.devnull}
            process.terminate()
            assert process.wait(START_SECONDS) == 0
        finally:
            process.kill()


def is_ready(address: Path) -> bool:
    """True if a server answers at a unix socket, which is bound before the model is loaded."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(0.5)
        try:
            channel.connect(str(address))
            channel.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return channel.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
