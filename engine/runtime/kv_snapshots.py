"""KV cache snapshots: a mirror of the prefix tree's savable runs in the state folder, read again after a restart.

A file contains one run: a line of JSON, then the engine's own bytes. Native code reads these bytes, so a snapshot is
used only if its model, engine and settings (`fingerprint`) and its checksum match. A file's name is a digest of its
run and of all tokens before it, so a run is written once, and a beginning that several runs share too.
"""

import fcntl
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.model import SavedState
from engine.platform import atomic_write
from engine.prefix_cache import CachedRun

SUFFIX = ".kv"
DRAFT_PREFIX = ".responsed-draft-"
"""Beginning of a temporary file's name."""
FILE_NAME = re.compile(r"[0-9a-f]{32}\.kv")
"""Pattern of a snapshot file's name."""

log = logging.getLogger("responsed.engine")


class _FileHeader(Struct, frozen=True):
    """The first line of a snapshot file."""

    fingerprint: str
    digest: str
    """BLAKE2b digest of the state."""
    tokens: tuple[int, ...]
    start: int = 0
    rows_size: int = 0
    """Bytes of the state's rows; its tail follows."""
    groups: frozenset[str] = frozenset()


class Snapshots:
    """The snapshot files of one state folder, at most `limit` bytes. With a limit of 0 none is written or restored, and
    files of earlier runs can be deleted.

    Several servers may share the folder: each deletes only files that it wrote or restored. A server that is alone in
    the folder deletes files without an owner (of an earlier model or setting).
    """

    def __init__(self, folder: Path, fingerprint: str, limit: int) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self.limit = limit
        self._owned: dict[str, frozenset[str] | None] = {}
        """Names of files that this server may delete -> affinity groups in the file; None if it is damaged."""
        self._lock: int | None = None
        """File descriptor that marks the folder as used until this process ends."""

    def write(self, runs: Sequence[CachedRun], *, complete: bool = True) -> None:
        """Replace this server's files by these runs, the most useful first. Errors are logged.

        Runs that are on the disk are not written again. Unless `complete`, this server's other files stay: they may
        not have been read yet.
        """
        try:
            if runs:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock_folder()
            names = [self._name(run.tokens, run.start, run.state) for run in runs]
            if complete:
                self._delete(self._owned.keys() - set(names))
            now = time.time_ns()
            for age, (name, run) in enumerate(zip(names, runs, strict=True)):
                self._write(name, run)
                os.utime(self._folder / name, ns=(now - age * 1000, now - age * 1000))  # the order of `read`
        except OSError as error:
            log.warning("the KV cache cannot be written for a restart: %s", error)

    def read(self) -> Iterator[CachedRun]:
        """Yield the runs that were written for this fingerprint, the most useful first, each after its beginning. Other
        files are skipped."""
        alone = self._is_alone()
        for path in self._files():
            try:
                head, state = _read(path)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                log.warning("%s is skipped: %s", path, error)
                continue
            if alone or head.fingerprint == self._fingerprint:
                self._owned[path.name] = head.groups
            if head.fingerprint != self._fingerprint:
                log.info("%s is skipped: it is from another model, engine or setting", path.name)
            elif head.digest != _digest(state) or path.name != self._name(head.tokens, head.start, state):
                self._owned[path.name] = None
                log.warning("%s is skipped: it is damaged", path)
            elif self.limit:
                yield CachedRun(head.tokens, head.start, state, head.groups)

    def _is_alone(self) -> bool:
        """Lock the folder; return False if another server has the lock."""
        try:
            return self._folder.is_dir() and self._lock_folder()
        except OSError as error:
            log.warning("%s cannot be locked: %s", self._folder, error)
            return False

    def drop(self, group: str | None = None) -> None:
        """Delete this server's files, including those of its earlier runs, whose tokens no other affinity group had;
        None: all."""
        if self._lock is None:
            for _ in self.read():
                pass
        try:
            owned = list(self._owned.items())
            self._delete([name for name, groups in owned if group is None or not groups or groups <= {group}])
        except OSError as error:
            log.warning("the KV cache on the disk cannot be deleted: %s", error)

    def _delete(self, names: Collection[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)
            self._owned.pop(name, None)

    def _files(self) -> list[Path]:
        """Return the regular files with a name that `_write` gives, the newest first."""
        found: list[tuple[int, Path]] = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):  # another server has just replaced it
                if FILE_NAME.fullmatch(path.name) and path.is_file():
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)]

    def _lock_folder(self) -> bool:
        """Mark the folder as used. Return True if this process had not done so, and no other server uses it; then
        remove a killed server's drafts."""
        if self._lock is not None:
            return False
        self._lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:  # as long as no other server can write a draft
                for draft in self._folder.glob(f"{DRAFT_PREFIX}*"):
                    draft.unlink(missing_ok=True)
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_SH)
            return True
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return False

    def _write(self, name: str, run: CachedRun) -> None:
        """Write one file atomically, unless it exists. Its digest shows damage, so that no run waits for the disk."""
        path, state, groups = self._folder / name, run.state, self._owned.get(name)
        if groups is not None and groups <= run.groups and path.exists():
            return
        head = _FileHeader(self._fingerprint, _digest(state), run.tokens, run.start, len(state.rows), run.groups)
        # Other threads and other servers, also in containers with the same process ids, may write the same run.
        draft = self._folder / f"{DRAFT_PREFIX}{secrets.token_hex(16)}"
        with atomic_write(path, draft, mode=0o600, syncs=False) as file:
            file.writelines((msgspec.json.encode(head), b"\n", state.rows, state.tail))
        self._owned[name] = run.groups

    def _name(self, tokens: tuple[int, ...], start: int, state: SavedState) -> str:
        """Return the name of a run's file; the run may get a tail later, or lose it."""
        content = repr((self._fingerprint, start, tokens, bool(state.tail)))
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest() + SUFFIX


def _read(path: Path) -> tuple[_FileHeader, SavedState]:
    """Raises ValueError or OSError."""
    with path.open("rb") as file:
        head = msgspec.json.decode(file.readline(), type=_FileHeader)
        if not 0 <= head.rows_size <= path.stat().st_size:
            raise ValueError("its length does not fit")
        return head, SavedState(file.read(head.rows_size), file.read())


def _digest(state: SavedState) -> str:
    digest = hashlib.blake2b(state.rows, digest_size=32)
    digest.update(state.tail)
    return digest.hexdigest()
