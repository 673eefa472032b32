"""The KV cache's contents over a restart: what was held is read back, instead of being evaluated again.

A file holds one slot: a line of JSON, then the engine's own bytes. Those go into native code, so they are only handed
on whole: same model, engine and settings (`fingerprint`), and a checksum that fits.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

SUFFIX = ".kv"

log = logging.getLogger("responsed.engine")


class Snapshot(Struct, frozen=True):
    """A slot's tokens and their state."""

    tokens: tuple[int, ...]
    state: bytes


class _Head(Struct, frozen=True):
    fingerprint: str
    digest: str
    """BLAKE2b of the state."""
    tokens: tuple[int, ...]


class Snapshots:
    """The files of one state folder, `limit` bytes at most."""

    def __init__(self, folder: Path, fingerprint: str, limit: int) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._limit = limit

    def choose(self, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
        """Those that fit into the limit, the first ones first."""
        chosen, left = [], self._limit
        for snapshot in snapshots:
            if len(snapshot.state) <= left:
                chosen.append(snapshot)
                left -= len(snapshot.state)
        return chosen

    def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Make these the folder's contents; the first one becomes the newest file. Errors are logged."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = {self._write(snapshot).name for snapshot in reversed(snapshots)}
            for path in self._folder.iterdir():
                if path.name not in kept:
                    path.unlink()
        except OSError as error:
            log.warning("the KV cache cannot be kept for a restart: %s", error)

    def read(self) -> Iterator[Snapshot]:
        """What was written for this fingerprint, the most useful first. What is damaged or foreign is left out."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            try:
                line, _, state = path.read_bytes().partition(b"\n")
                head = msgspec.json.decode(line, type=_Head)
            except (OSError, ValueError) as error:
                log.warning("%s is left out: %s", path, error)
                continue
            if head.fingerprint != self._fingerprint:
                log.info("%s is left out: it is of another model, engine or setting", path.name)
            elif head.digest != _digest(state):
                log.warning("%s is left out: it is damaged", path)
            else:
                yield Snapshot(head.tokens, state)

    def _write(self, snapshot: Snapshot) -> Path:
        name = hashlib.blake2b(repr(snapshot.tokens).encode(), digest_size=16).hexdigest()
        path = self._folder / f"{name}{SUFFIX}"
        head = msgspec.json.encode(_Head(self._fingerprint, _digest(snapshot.state), snapshot.tokens))
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.writelines((head, b"\n", snapshot.state))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        return path


def _digest(state: bytes) -> str:
    return hashlib.blake2b(state, digest_size=32).hexdigest()
