"""The stored entries, for the commands of `responsed store`: listed, read, deleted and vacuumed beside a server.

The file is neither created, migrated nor renamed here: that is the server's part.
"""

import fcntl
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from server.store.database import APPLICATION_ID, BUSY_SECONDS
from server.store.errors import NewerStore, StoreError, translated
from server.store.eviction import DAY_SECONDS, Missing
from server.store.responses import SCHEMA

ENTRIES = """
    SELECT entries.id, CASE WHEN responses.id IS NULL THEN 'conversation' ELSE 'response' END,
        coalesce(responses.status, ''), coalesce(responses.created_at, conversations.created_at),
        ((SELECT max(used) FROM entries) - used) / :day, bytes, responses.previous, responses.conversation
    FROM entries LEFT JOIN responses USING (id) LEFT JOIN conversations USING (id)
"""
"""Query for the fields of `Entry`."""
BODY = {
    "response": "SELECT coalesce(response, first) FROM responses WHERE id = ?",
    "conversation": "SELECT metadata FROM conversations WHERE id = ?",
}
ITEMS = {
    "response": "SELECT items FROM responses WHERE id = ?",
    "conversation": "SELECT json FROM items WHERE conversation = ? ORDER BY place",
}


class Entry(Struct, frozen=True):
    """A stored response or conversation."""

    id: str
    kind: str
    """`response` or `conversation`."""
    status: str
    """Status of a response; empty for a conversation."""
    created_at: int
    unused_days: float
    """Days of serving between its last use and the last use of any entry."""
    bytes: int
    previous_response_id: str | None
    conversation: str | None


class Content(Struct, frozen=True):
    """Bodies of an entry, each encoded JSON."""

    body: bytes
    """Response, or metadata of a conversation."""
    items: Sequence[bytes]
    """All items of a conversation, or one list with the input items of a response."""


class Inventory:
    """The entries of one file. Every method may raise StoreError."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError, also if the tables are not those of this version."""
        self._path = path
        self.served = _is_locked(path)
        """True if a server has the file open."""
        with translated(path):
            # mode=rw creates no file.
            uri = f"{path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, BUSY_SECONDS, isolation_level=None, uri=True)
        try:
            with translated(path):
                self._check()
        except StoreError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def entries(self) -> list[Entry]:
        """Return all entries, the most recently used first."""
        return self._select("ORDER BY used DESC, entries.rowid DESC")

    def entry(self, entry_id: str) -> Entry:
        """Raises Missing."""
        found = self._select("WHERE entries.id = :id", id=entry_id)
        if not found:
            raise Missing(entry_id)
        return found[0]

    def content(self, entry: Entry) -> Content:
        with translated(self._path):
            ((body,),) = self._connection.execute(BODY[entry.kind], (entry.id,))
            return Content(body, [each for (each,) in self._connection.execute(ITEMS[entry.kind], (entry.id,))])

    def in_use(self) -> set[str]:
        """Return the ids of responses in progress and their conversations; none if no server runs."""
        with translated(self._path):
            return {row[0] for row in self._connection.execute("SELECT id FROM held")} if self.served else set()

    def delete(self, entry_ids: Collection[str]) -> None:
        """Delete entries together; their bytes are overwritten."""
        with translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM entries WHERE id = ?", [(each,) for each in entry_ids])
            self._connection.execute("COMMIT")
            self._checkpoint()

    def vacuum(self) -> tuple[int, int]:
        """Rewrite the file without its free pages; return its bytes before and after."""
        with translated(self._path):
            before = self._size()
            self._connection.execute("VACUUM")
            self._checkpoint()
            return before, self._size()

    def _check(self) -> None:
        for pragma in ("foreign_keys = ON", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        (application_id,), (version,) = (
            self._connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if application_id != APPLICATION_ID:
            raise StoreError(f"{self._path} is not a file of responsed; see --state-dir and --store")
        if version > SCHEMA.version:
            raise NewerStore(self._path, version, SCHEMA.version)
        if version < SCHEMA.version:
            raise StoreError(f"{self._path} is of an older version ({version}); start the server, which migrates it")

    def _select(self, condition: str, **values: object) -> list[Entry]:
        with translated(self._path):
            return [
                Entry(*row) for row in self._connection.execute(f"{ENTRIES} {condition}", values | {"day": DAY_SECONDS})
            ]

    def _checkpoint(self) -> None:
        """Move the changes from the log into the file, so that the log has no deleted content either."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _size(self) -> int:
        return self._path.stat().st_size


def _is_locked(path: Path) -> bool:
    """Return True if a server has the file open.

    Call this before SQLite opens the file: closing a descriptor removes the process's POSIX locks, which SQLite uses.
    """
    with translated(path), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
