"""Results of earlier probes, so that later starts need not repeat them.

Path, size, modification time and inode identify a file: a replaced file counts as another one.
"""

import hashlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.platform import atomic_write


def identity(path: Path) -> str:
    """Return a text that differs for a file that replaces another one; empty if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    name = os.fsencode(path.resolve()).decode(errors="backslashreplace")  # JSON must be UTF-8, a file name need not
    return f"{name}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"


class ProbeRecord(Struct):
    """Results of one file."""

    sha256: str = ""
    passed: list[str] = []
    """Names and versions of the probes that the file has passed."""


class ProbeCache:
    """A small JSON file in the cache. Its loss only costs time, and so does a failure to write it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._records = msgspec.json.decode(file.read_bytes(), type=dict[str, ProbeRecord])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            self._records = {}

    def sha256(self, path: Path) -> str:
        """Return the file's hash, computed once."""
        record = self._record(path)
        if not record.sha256:
            with path.open("rb") as file:
                record.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self._write()
        return record.sha256

    def has_passed(self, path: Path, probe: str) -> bool:
        """True if the file has passed a probe."""
        return probe in self._record(path).passed

    def record(self, path: Path, probe: str) -> None:
        """Record that the file has passed a probe."""
        self._record(path).passed.append(probe)
        self._write()

    def _record(self, path: Path) -> ProbeRecord:
        return self._records.setdefault(identity(path), ProbeRecord())

    def _write(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file, self._file.with_name(f"{self._file.name}.{os.getpid()}.draft")) as file:
                file.write(msgspec.json.format(msgspec.json.encode(self._records)))
        except OSError:
            return  # an unwritable cache (a read-only disk) only makes starts slower
