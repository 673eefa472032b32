"""The SQLite file behind the store: how it is opened, and what is said when it fails.

WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a power cut may lose the last commits,
never a part of one. The lock is held as long as the file is open, so that no second server ends this one's responses.
"""

import itertools
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

LOCK_SECONDS = 1.0
"""How long another process may take to let the file go."""

PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "journal_size_limit = 4194304",
)

NAME = "responses.db"
"""The file's name in a state folder."""
MARK = 0x72737064
"""SQLite's application id of our files ("rspd")."""
OLD_TABLES = {"entries", "responses", "conversations"}
"""Files of the first versions have no mark."""

SIDES = ("", "-wal", "-shm", "-journal")
"""What belongs to a database: left behind, they would be taken for the next file's."""

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
UNWRITABLE = "cannot be written: check the permissions, or give another place with --store"
ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, or give another place with --store",
    sqlite3.SQLITE_READONLY: f"it or its folder {UNWRITABLE}",
    sqlite3.SQLITE_CANTOPEN: f"it or its folder {UNWRITABLE}",
    sqlite3.SQLITE_IOERR: "the disk fails (the system's log tells more): give another place with --store",
    sqlite3.SQLITE_BUSY: "another process has it open: stop that one, or give another place with --store",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restart the server, which puts it aside and begins a new one",
}

Row: TypeAlias = tuple[Any, ...]

log = logging.getLogger("responsed.store")


class StoreError(Exception):
    """The disk did not do it. One sentence, which names the file and says what to do."""


class Database:
    """One connection, for one thread at a time. Every failure of SQLite comes out as StoreError."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        """A file that is damaged or of another version is put aside, and a new one begun. Raises StoreError."""
        self._path = path
        self._schema = f"BEGIN; {schema} PRAGMA user_version = {version}; PRAGMA application_id = {MARK}; COMMIT;"
        self._version = version
        self._connection = self._connect()
        try:
            with self._translated():
                if flaw := self._flaw():
                    self._check_ours()
                    self._put_aside(flaw)
                    if flaw := self._flaw():
                        raise StoreError(f"{path} is {flaw} as soon as it is written: give another place with --store")
                os.chmod(path, 0o600)
        except StoreError:
            self.close()
            raise

    def rows(self, sql: str, *values: object) -> list[Row]:
        with self._translated():
            return self._connection.execute(sql, values).fetchall()

    def each(self, sql: str, *values: object) -> Iterator[Row]:
        """The same, row by row: for who may not want all of them."""
        with self._translated():
            yield from self._connection.execute(sql, values)

    def row(self, sql: str, *values: object) -> Row | None:
        return next(iter(self.rows(sql, *values)), None)

    def change(self, sql: str, *values: object) -> int:
        """How many rows it changed."""
        with self._translated():
            return self._connection.execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:  # SQLite itself has rolled back where the disk was full
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        with self._translated():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives the files beside it the same mode. A file that is there may be somebody else's.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return sqlite3.connect(self._path, LOCK_SECONDS, isolation_level=None, check_same_thread=False)

    def _flaw(self) -> str | None:
        """Why this file can't be used. One that is new gets its tables."""
        try:
            # Before anything is read: then there is no memory shared with others, which not every disk can do.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            ((version,),) = self._connection.execute("PRAGMA user_version")
            ((tables,),) = self._connection.execute("SELECT count(*) FROM sqlite_schema")
            if tables and not self._is_ours():
                return "foreign"
            if tables and version != self._version:
                return f"version-{version}"
            for pragma in PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
            if not tables:
                self._connection.executescript(self._schema)
            elif list(self._connection.execute("PRAGMA quick_check(1)")) != [("ok",)]:
                return "damaged"
        except sqlite3.DatabaseError as error:
            if _code(error) in DAMAGED:
                return "damaged"
            raise
        return None

    def _check_ours(self) -> None:
        """Raises StoreError for a file of somebody else. One that can't be read any more counts by its name."""
        ours = self._path.name == NAME
        with suppress(sqlite3.DatabaseError):
            ours = self._is_ours()
        if not ours:
            raise StoreError(f"{self._path} is not a file of this program: give another place with --store")

    def _is_ours(self) -> bool:
        ((mark,),) = self._connection.execute("PRAGMA application_id")
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_schema")}
        return mark == MARK or tables >= OLD_TABLES

    def _put_aside(self, flaw: str) -> None:
        self.close()
        names = (f"{self._path}.{flaw}{number or ''}" for number in itertools.count())
        aside = next(name for name in names if not os.path.lexists(name))
        for side in SIDES:
            with suppress(FileNotFoundError):
                os.replace(f"{self._path}{side}", f"{aside}{side}")
        log.warning("%s cannot be used: it is put aside as %s, and a new one begun", self._path, aside)
        self._connection = self._connect()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            advice = ADVICE.get(_code(error), f"{error}: give another place with --store")
            raise StoreError(f"{self._path}: {advice}") from error
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}: it {UNWRITABLE}") from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for what Python's module raises by itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
