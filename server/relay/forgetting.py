"""Prompts of deleted responses and conversations: every server of the database forgets them.

A server reads the list of deletions with each sign of life. A file beside its KV snapshots has the number at which it
stopped, so that the next run does not restore a prompt that was deleted meanwhile.
"""

import logging
from pathlib import Path

import trio

from engine.platform import atomic_write
from server.generation import Generator
from server.served_model import AnsweringModel
from server.store import AsyncStore, Deletion

MARK_NAME = "deletions"
"""Name of the file in the state folder."""

log = logging.getLogger("responsed.store")


class Forgetting:
    def __init__(
        self, engine: Generator, model: AnsweringModel, store: AsyncStore | None, state_dir: Path | None
    ) -> None:
        """`state_dir`: folder of the file with the number; None if nothing is restored from a disk."""
        self._engine = engine
        self._model = model
        self._store = store
        self._mark = None if state_dir is None else state_dir / MARK_NAME
        self._number: int | None = None
        """Number of the last deletion that was read."""

    async def forget(self, deletion: Deletion) -> None:
        """Forget the prompts of a deletion in this server."""
        self._model.forget(deletion.id, deletion.affinity)
        await self._engine.drop_cached(deletion.affinity)

    async def follow(self) -> None:
        """Forget what other servers have deleted since the last call. Raises StoreError."""
        if self._store is None:
            return
        before = _read(self._mark) if self._number is None else self._number
        number, deletions = await self._store.run(self._store.responses.deletions.after, before)
        for each in deletions:
            await self.forget(each)
        if number != self._number:
            self._number = number
            if self._mark is not None and number != before:
                await trio.to_thread.run_sync(_write, self._mark, number)


def _read(mark: Path | None) -> int | None:
    """Return the number in a file; None without one."""
    try:
        return None if mark is None else int(mark.read_text())
    except (OSError, ValueError):
        return None


def _write(mark: Path, number: int) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(mark, mark.with_suffix(".new"), 0o600) as file:
            file.write(b"%d\n" % number)
    except OSError as error:
        log.warning("%s cannot be written: %s", mark, error)
