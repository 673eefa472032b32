"""The SQLite file of a store beside the server that has it open: for reading, deleting and vacuuming.

The file is neither created, migrated nor renamed here.
"""

import fcntl
import sqlite3
from collections.abc import Collection
from pathlib import Path

from server.store.database import Row, Schema
from server.store.errors import NewerStore, OlderStore, StoreError, translated
from server.store.sqlite import APPLICATION_ID, BUSY_SECONDS


class SQLiteFile:
    """Second connection to a file; its methods are those of `inventory.OpenStore`."""

    def __init__(self, path: Path, schema: Schema) -> None:
        """Raises StoreError, also if the tables are not those of `schema`."""
        self._path = path
        self.served = _is_locked(path)
        with translated(path):
            # mode=rw creates no file.
            uri = f"{path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, BUSY_SECONDS, isolation_level=None, uri=True)
        try:
            with translated(path):
                self._check(schema)
        except StoreError:
            self.close()
            raise

    def rows(self, sql: str, *values: object) -> list[Row]:
        with translated(self._path):
            return self._connection.execute(sql, values).fetchall()

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

    def close(self) -> None:
        self._connection.close()

    def _check(self, schema: Schema) -> None:
        for pragma in ("foreign_keys = ON", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        (application_id,), (version,) = (
            self._connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if application_id != APPLICATION_ID:
            raise StoreError(f"{self._path} is not a file of responsed; see --state-dir and --store")
        if version > schema.version:
            raise NewerStore(self._path, version, schema.version)
        if version < schema.version:
            raise OlderStore(f"{self._path} is of an older version ({version}); start the server, which migrates it")

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
