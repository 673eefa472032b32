"""KV cache snapshots: slots are saved at shutdown and restored at start, instead of being evaluated again.

A file contains one slot: a line of JSON, then the engine's own bytes. Native code reads these bytes, so a snapshot is
restored only if its model, engine and settings (`fingerprint`) and its checksum match.
"""

import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.atomic_write import atomic_write
from engine.model import SavedState

SUFFIX = ".kv"
DRAFT_PREFIX = ".responsed-draft-"
"""Beginning of a temporary file's name."""
FILE_NAME = re.compile(r"[0-9a-f]{32}\.kv")
"""Pattern of a snapshot file's name."""

log = logging.getLogger("responsed.engine")


class Snapshot(Struct, frozen=True):
    """A slot's tokens and their state."""

    tokens: tuple[int, ...]
    state: SavedState


class _FileHeader(Struct, frozen=True):
    """The first line of a snapshot file."""

    fingerprint: str
    digest: str
    """BLAKE2b digest of the state."""
    tokens: tuple[int, ...]
    rows_size: int
    """Bytes of the state's rows; its tail follows."""


class Snapshots:
    """The snapshot files of one state folder, at most `limit` bytes. With a limit of 0 none is written or restored, and
    files of earlier runs can be deleted.

    Several servers may share the folder: each deletes only files that it wrote or restored. A server that is alone in
    the folder deletes files without an owner (of an earlier model or setting).
    """

    def __init__(self, folder: Path, fingerprint: str, limit: int) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._limit = limit
        self._owned: set[str] = set()
        """Names of files that this server may delete."""
        self._lock: int | None = None
        """File descriptor that marks the folder as used until this process ends."""

    def choose(self, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
        """Return the first snapshots that fit into the limit together."""
        if not self._limit:
            return []  # before anything is copied out of the engine
        chosen, left = [], self._limit
        for snapshot in snapshots:
            size = len(snapshot.state.rows) + len(snapshot.state.tail)
            if size <= left:
                chosen.append(snapshot)
                left -= size
        return chosen

    def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Replace this server's files by these snapshots; the first one becomes the newest file. Errors are logged."""
        try:
            if snapshots:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock_folder()
            written = {self._write(snapshot).name for snapshot in reversed(snapshots)}
            for name in self._owned - written:
                (self._folder / name).unlink(missing_ok=True)
            self._owned = written
        except OSError as error:
            log.warning("the KV cache cannot be written for a restart: %s", error)

    def read(self) -> Iterator[Snapshot]:
        """Yield the snapshots that were written for this fingerprint, the most useful first. Other files are
        skipped."""
        try:
            alone = self._folder.is_dir() and self._lock_folder()
        except OSError as error:
            log.warning("%s cannot be locked: %s", self._folder, error)
            alone = False
        if alone:
            for draft in self._folder.glob(f"{DRAFT_PREFIX}*"):  # a killed server left it
                draft.unlink(missing_ok=True)
        for path in self._files():
            try:
                head, state = _read(path)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                log.warning("%s is skipped: %s", path, error)
                continue
            if alone or head.fingerprint == self._fingerprint:
                self._owned.add(path.name)
            if head.fingerprint != self._fingerprint:
                log.info("%s is skipped: it is from another model, engine or setting", path.name)
            elif head.digest != _digest(state):
                log.warning("%s is skipped: it is damaged", path)
            elif self._limit:
                yield Snapshot(head.tokens, state)

    def drop(self) -> None:
        """Delete this server's files, including those of its earlier runs."""
        if self._lock is None:
            for _ in self.read():
                pass
        self.write(())

    def _files(self) -> list[Path]:
        """Return the regular files with a name that `_write` gives, the newest first."""
        found: list[tuple[int, Path]] = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):  # another server has just replaced it
                if FILE_NAME.fullmatch(path.name) and path.is_file():
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)]

    def _lock_folder(self) -> bool:
        """Mark the folder as used. Return True if no other server uses it."""
        if self._lock is not None:
            return False
        self._lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            return True
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return False

    def _write(self, snapshot: Snapshot) -> Path:
        """Write one file atomically."""
        digest = hashlib.blake2b(repr((self._fingerprint, snapshot.tokens)).encode(), digest_size=16).hexdigest()
        path = self._folder / f"{digest}{SUFFIX}"
        state = snapshot.state
        head = _FileHeader(self._fingerprint, _digest(state), snapshot.tokens, len(state.rows))
        with atomic_write(path, self._folder / f"{DRAFT_PREFIX}{digest}", mode=0o600) as file:
            file.writelines((msgspec.json.encode(head), b"\n", state.rows, state.tail))
        return path


def _read(path: Path) -> tuple[_FileHeader, SavedState]:
    line, _, state = path.read_bytes().partition(b"\n")
    head = msgspec.json.decode(line, type=_FileHeader)
    return head, SavedState(state[: head.rows_size], state[head.rows_size :])


def _digest(state: SavedState) -> str:
    digest = hashlib.blake2b(state.rows, digest_size=32)
    digest.update(state.tail)
    return digest.hexdigest()
