"""The SQLite file of the store: opening, tables and transactions.

WAL with synchronous=NORMAL: a killed process loses no commit; a power cut may lose the last commits, but no part of
one. One server at a time has the file, by an flock: a second one would mark this server's responses as failed. The
commands of `responsed store` may use the file beside it, by SQLite's own locks.
"""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.store.damaged_copies import put_aside
from server.store.database import Database, Row, Schema
from server.store.errors import ADVICE, DAMAGED, NewerStore, StoreError, code, translated

LOCK_SECONDS = 1.0
"""Seconds to wait until another server unlocks the file."""
BUSY_SECONDS = 10.0
"""Seconds to wait for another process's transaction."""

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

NO_SHARED_MEMORY = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
"""Result codes where the file system has no shared memory for WAL."""

log = logging.getLogger("responsed.store")


class SQLiteDatabase(Database):
    """One connection to a file. It raises every error of SQLite as StoreError."""

    orphaned = "TRUE"  # nobody else has the file

    def __init__(self, path: Path, schema: Schema) -> None:
        """Open the file and migrate its tables; rename a damaged file and create a new one. Raises StoreError."""
        self._path = path
        self._schema = schema
        self._write_failed = False
        """True if the last transaction failed in SQLite."""
        self._lock = -1
        self._connection = self._connect()
        try:
            with translated(path):
                if not self._prepare():
                    check_ours(self._connection, path)
                    self.close()
                    put_aside(path)
                    self._connection = self._connect()
                    if not self._prepare():
                        raise StoreError(
                            f"{path} is damaged right after it was created; choose another file with --store"
                        )
                os.chmod(path, 0o600)
        except StoreError:
            self.close()
            raise

    def rows(self, sql: str, *values: object) -> list[Row]:
        with translated(self._path):
            return self._connection.execute(sql, values).fetchall()

    def each(self, sql: str, *values: object) -> Iterator[Row]:
        with translated(self._path):
            yield from self._connection.execute(sql, values)

    def change(self, sql: str, *values: object) -> int:
        with translated(self._path):
            return self._connection.execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._write_failed, was_failed = True, self._write_failed
        with translated(self._path):
            self._check_in_place()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
                self._write_failed = False
            except (sqlite3.Error, StoreError):
                raise
            except BaseException:
                self._write_failed = was_failed  # the block's own exception has nothing to do with the disk
                raise
            finally:
                if self._connection.in_transaction:  # SQLite rolls back by itself if the disk is full
                    self._connection.execute("ROLLBACK")

    def clock(self) -> None:
        """Return None: the file's time continues from its latest use."""

    def check_writable(self) -> None:
        """Raise StoreError if the file was deleted, or if the last write failed and another one fails too.

        A healthy file is not written: readiness is asked every few seconds, which would wear out an SD card.
        """
        self._check_in_place()
        if self._write_failed:
            with self.transaction():
                self._connection.execute(f"PRAGMA user_version = {self._schema.version}")

    def close(self) -> None:
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _check_in_place(self) -> None:
        """Raise StoreError if the file was deleted or replaced: the open one would be lost when the server ends."""
        with translated(self._path):
            try:
                in_place = os.path.samestat(os.stat(self._path), os.fstat(self._lock))
            except FileNotFoundError:
                in_place = False
        if not in_place:
            raise StoreError(f"{self._path} was deleted or replaced; restart the server, or put the file back")

    def _connect(self) -> sqlite3.Connection:
        with translated(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives its other files the same mode. An existing file may not be ours, so its mode stays.
            self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _locked(self._lock):
                os.close(self._lock)
                raise StoreError(f"{self._path}: {ADVICE[sqlite3.SQLITE_BUSY]}")
            return self._opened()

    def _opened(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def _prepare(self) -> bool:
        """Check, create or migrate the tables; return False if the file is damaged. Raises NewerStore, StoreError."""
        try:
            return self._prepare_tables()
        except sqlite3.OperationalError as error:
            if code(error) not in NO_SHARED_MEMORY:
                raise
        self._connection.close()
        self._connection = self._opened()
        # Set before the first read, this mode needs no shared memory; `responsed store` has to wait for the server.
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        return self._prepare_tables()

    def _prepare_tables(self) -> bool:
        try:
            ((version,),) = self._connection.execute("PRAGMA user_version")
            ((tables,),) = self._connection.execute("SELECT count(*) FROM sqlite_schema")
            if tables and not self._migrate(version):
                return False
            for pragma in PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute("BEGIN IMMEDIATE")  # opens the shared memory, or raises
            self._connection.execute("ROLLBACK")
            if not tables:
                self._execute(f"{self._schema.tables} PRAGMA application_id = {APPLICATION_ID};", self._schema.version)
        except sqlite3.DatabaseError as error:
            if code(error) in DAMAGED:
                return False
            raise
        return True

    def _migrate(self, version: int) -> bool:
        """Bring the tables to the version of this program; return False if they are damaged."""
        check_ours(self._connection, self._path)
        if version > self._schema.version:
            raise NewerStore(self._path, version, self._schema.version)
        if version < 1 or list(self._connection.execute("PRAGMA quick_check(1)")) != [("ok",)]:
            return False
        for number, step in self._schema.steps_after(version):  # without foreign keys, which are still off
            self._execute(step, number)
            log.info("%s: migrated its tables to version %d", self._path, number)
        return True

    def _execute(self, script: str, version: int) -> None:
        """Execute statements and set the version, in one transaction."""
        self._connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {version}; COMMIT;")


def check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError for a file of another program. An unreadable file is ours if it has our name."""
    try:
        ((application_id,),) = connection.execute("PRAGMA application_id")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        ours = application_id == APPLICATION_ID or tables >= OLD_TABLES
    except sqlite3.DatabaseError as error:
        if code(error) not in DAMAGED:
            raise
        ours = path.name == NAME
    if not ours:
        raise StoreError(f"{path} is not a file of responsed; choose another file with --store")


def _locked(descriptor: int) -> bool:
    """Lock a file for one server; return False if another one has it. SQLite's own locks are of another kind."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True
