"""Databases beside the servers that have them open: for reading, deleting and vacuuming.

They are neither created, migrated nor renamed here.
"""

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from server.store.database import Row, Schema
from server.store.deletions import ALL, Deletions
from server.store.errors import NewerStore, OlderStore, StoreError, translated
from server.store.postgres import LIVING, PostgresDatabase
from server.store.sqlite import BUSY_SECONDS, check_ours

TABLES = "items, conversations, responses, entries"
SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
"""


class OpenStore(Protocol):
    """Database of a store, beside the servers that have it open. Every method may raise StoreError."""

    @property
    def served(self) -> bool:
        """True if a server has the store open."""
        ...

    @property
    def shared(self) -> bool:
        """True if servers read which entries were deleted, and forget their prompts."""
        ...

    def rows(self, sql: str, *values: object) -> list[Row]: ...

    def delete(self, entry_ids: Collection[str]) -> None:
        """Delete entries together."""
        ...

    def vacuum(self) -> tuple[int, int]:
        """Give free space back; return the bytes of the store before and after."""
        ...

    def close(self) -> None: ...


class OpenSQLiteStore:
    """Second connection to a file; see `OpenStore`."""

    shared = False

    def __init__(self, path: Path, schema: Schema) -> None:
        """Raises StoreError, also if the tables are not those of `schema`."""
        self._path = path
        self.served = _is_locked(path)
        with translated(path):
            # mode=rw creates no file.
            uri = f"{path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, timeout=BUSY_SECONDS, isolation_level=None, uri=True)
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
        if not self._size():  # of a server whose disk was full
            raise OlderStore(f"{self._path} is empty; start the server, which makes its tables")
        check_ours(self._connection, self._path)
        for pragma in ("foreign_keys = ON", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        ((version,),) = self._connection.execute("PRAGMA user_version")
        if version > schema.version:
            raise NewerStore(self._path, version, schema.version)
        if version < schema.version:
            raise OlderStore(f"{self._path} is of an older version ({version}); start the server, which migrates it")

    def _checkpoint(self) -> None:
        """Move the changes from the log into the file, so that the log has no deleted content either."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _size(self) -> int:
        """Return the bytes of the file and of its log of changes."""
        log = self._path.with_name(f"{self._path.name}-wal")
        return self._path.stat().st_size + (log.stat().st_size if log.exists() else 0)


def check_openable(path: Path) -> bool:
    """Return True if the file exists, False if a server could create it. Raises StoreError if it may not be written."""
    with translated(path):
        if path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            return True
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=path.parent).close()
        return False


class OpenPostgresStore:
    """Connection that belongs to no server; see `OpenStore`."""

    shared = True

    def __init__(self, url: str, password: str | None) -> None:
        """Raises StoreError, also if the tables are missing or not those of this version."""
        self._database = PostgresDatabase(url, password)
        self.rows = self._database.rows
        self.close = self._database.close
        self.served = bool(self.rows(f"SELECT 1 FROM servers WHERE {LIVING}"))

    def delete(self, entry_ids: Collection[str]) -> None:
        """Delete entries together. Their bytes stay in PostgreSQL's files until `vacuum`.

        All servers drop their caches, since entries do not show the affinity group of their prompts.
        """
        with self._database.transaction():
            for each in entry_ids:
                self._database.change("DELETE FROM entries WHERE id = ?", each)
            if entry_ids:
                Deletions(self._database).add(ALL)

    def vacuum(self) -> tuple[int, int]:
        """Rewrite the tables without the deleted rows; return their bytes before and after."""
        before = self._size()
        self._database.change(f"VACUUM (FULL) {TABLES}")
        return before, self._size()

    def _size(self) -> int:
        ((size,),) = self.rows(SIZE)
        return int(size)


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
