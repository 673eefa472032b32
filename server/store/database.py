"""The SQLite file of the store: opening, transactions, and messages of its errors.

WAL with synchronous=NORMAL: a killed process loses no commit; a power cut may lose the last commits, but no part of
one. The file stays locked while it is open, so that a second server cannot mark this server's responses as failed.
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
"""Seconds to wait until another process unlocks the file."""

PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "journal_size_limit = 4194304",
)

NAME = "responses.db"
"""Name of the file in the state folder."""

APPLICATION_ID = 0x72737064
"""SQLite's application id of our files ("rspd")."""

OLD_TABLES = {"entries", "responses", "conversations"}
"""Tables of our first versions, whose files have no application id."""

SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Suffixes of a database's files. SQLite would apply files that are left behind to the next database."""

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
UNWRITABLE = "cannot be written; check the permissions, or choose another file with --store"
ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, or choose another file with --store",
    sqlite3.SQLITE_READONLY: f"the file or its folder {UNWRITABLE}",
    sqlite3.SQLITE_CANTOPEN: f"the file or its folder {UNWRITABLE}",
    sqlite3.SQLITE_IOERR: "the disk fails (see the system's log); choose another file with --store",
    sqlite3.SQLITE_BUSY: "another process uses the file; stop it, or choose another file with --store",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restart the server, which renames it and creates a new one",
}

Row: TypeAlias = tuple[Any, ...]

log = logging.getLogger("responsed.store")


class StoreError(Exception):
    """Access to the file failed. The message is one sentence that names the file and the remedy."""


class Database:
    """One connection, for one thread at a time. It raises every error of SQLite as StoreError."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        """Open the file; rename a damaged file or one of another version and create a new one. Raises StoreError."""
        self._path = path
        self._schema = (
            f"BEGIN; {schema} PRAGMA user_version = {version}; PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        )
        self._version = version
        self._write_failed = False
        """True if the last transaction failed in SQLite."""
        self._connection = self._connect()
        try:
            with self._sqlite_errors_translated():
                if flaw := self._flaw():
                    self._check_ours()
                    self._rename(flaw)
                    if flaw := self._flaw():
                        raise StoreError(
                            f"{path} is {flaw} right after it was created; choose another file with --store"
                        )
                os.chmod(path, 0o600)
        except StoreError:
            self.close()
            raise

    def rows(self, sql: str, *values: object) -> list[Row]:
        with self._sqlite_errors_translated():
            return self._connection.execute(sql, values).fetchall()

    def each(self, sql: str, *values: object) -> Iterator[Row]:
        """Yield the rows one by one, for callers that may stop early."""
        with self._sqlite_errors_translated():
            yield from self._connection.execute(sql, values)

    def row(self, sql: str, *values: object) -> Row | None:
        return next(iter(self.rows(sql, *values)), None)

    def change(self, sql: str, *values: object) -> int:
        """Execute a change and return the number of changed rows."""
        with self._sqlite_errors_translated():
            return self._connection.execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the block's changes together, or none of them."""
        self._write_failed, was_failed = True, self._write_failed
        with self._sqlite_errors_translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
                self._write_failed = False
            except (sqlite3.Error, StoreError):
                raise
            except BaseException:
                self._write_failed = was_failed  # the block's own exception says nothing about the disk
                raise
            finally:
                if self._connection.in_transaction:  # SQLite rolls back by itself if the disk is full
                    self._connection.execute("ROLLBACK")

    def check_writable(self) -> None:
        """Raise StoreError if the last write failed and another one fails too.

        A healthy file is not written: readiness is asked every few seconds, which would wear out an SD card.
        """
        if self._write_failed:
            with self.transaction():
                self._connection.execute(f"PRAGMA user_version = {self._version}")

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        with self._sqlite_errors_translated():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives its other files the same mode. An existing file may not be ours, so its mode stays.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return sqlite3.connect(self._path, LOCK_SECONDS, isolation_level=None, check_same_thread=False)

    def _flaw(self) -> str | None:
        """Return the reason not to use the file, if there is one; create the tables of a new file."""
        try:
            # Set before the first read, this mode needs no shared memory, which some file systems do not support.
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
        """Raise StoreError for a file of another program. An unreadable file is ours if it has our name."""
        ours = self._path.name == NAME
        with suppress(sqlite3.DatabaseError):
            ours = self._is_ours()
        if not ours:
            raise StoreError(f"{self._path} is not a file of responsed; choose another file with --store")

    def _is_ours(self) -> bool:
        ((application_id,),) = self._connection.execute("PRAGMA application_id")
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_schema")}
        return application_id == APPLICATION_ID or tables >= OLD_TABLES

    def _rename(self, flaw: str) -> None:
        self.close()
        names = (f"{self._path}.{flaw}{number or ''}" for number in itertools.count())
        moved = next(name for name in names if not os.path.lexists(name))
        for suffix in SUFFIXES:
            with suppress(FileNotFoundError):
                os.replace(f"{self._path}{suffix}", f"{moved}{suffix}")
        log.warning("%s cannot be used; renamed it to %s and created a new one", self._path, moved)
        self._connection = self._connect()

    @contextmanager
    def _sqlite_errors_translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            advice = ADVICE.get(_code(error), f"{error}; choose another file with --store")
            raise StoreError(f"{self._path}: {advice}") from error
        except OSError as error:
            raise StoreError(f"{self._path} ({error.strerror}) {UNWRITABLE}") from error


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for errors of Python's module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
