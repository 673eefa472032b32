"""What was found out about model files before, so that a start doesn't find it out again.

A file is known by path, size, modification time and inode: one that was replaced is another file.
"""

import hashlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.atomic_write import atomic_write


class ProbeRecord(Struct):
    sha256: str = ""
    passed: list[str] = []
    """The probes that the file has passed, by name and version."""


class ProbeCache:
    """A small JSON file in the cache. Losing it, or not being able to write it, costs time and nothing else."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._records = msgspec.json.decode(file.read_bytes(), type=dict[str, ProbeRecord])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            self._records = {}

    def sha256(self, path: Path) -> str:
        record = self._record(path)
        if not record.sha256:
            with path.open("rb") as file:
                record.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self._write()
        return record.sha256

    def has_passed(self, path: Path, probe: str) -> bool:
        return probe in self._record(path).passed

    def record(self, path: Path, probe: str) -> None:
        self._record(path).passed.append(probe)
        self._write()

    def _record(self, path: Path) -> ProbeRecord:
        stat = path.stat()
        name = os.fsencode(path.resolve()).decode(errors="backslashreplace")  # a name need not be UTF-8, but JSON is
        identity = f"{name}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        return self._records.setdefault(identity, ProbeRecord())

    def _write(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file, self._file.with_name(f"{self._file.name}.{os.getpid()}.draft")) as file:
                file.write(msgspec.json.format(msgspec.json.encode(self._records)))
        except OSError:
            return  # a cache that can't be written (a read-only disk) makes starts slower, not wrong
