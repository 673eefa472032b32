"""Errors of the store, and those of SQLite as sentences that name the file and the remedy."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""Result codes of a damaged file."""
UNWRITABLE = "cannot be written; check the permissions, or choose another file with --store"
ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, or choose another file with --store",
    sqlite3.SQLITE_READONLY: f"the file or its folder {UNWRITABLE}",
    sqlite3.SQLITE_CANTOPEN: f"the file or its folder {UNWRITABLE}",
    sqlite3.SQLITE_IOERR: "the disk fails (see the system's log); choose another file with --store",
    sqlite3.SQLITE_BUSY: "another process uses the file; stop it, or choose another file with --store",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restart the server, which renames it and creates a new one",
    sqlite3.SQLITE_NOTADB: "the file is damaged; restart the server, which renames it and creates a new one",
}


class StoreError(Exception):
    """Access to the database failed. The message is one sentence that names its place and the remedy."""


class NewerStore(StoreError):
    """A newer version of this program wrote the store."""

    def __init__(self, place: Path | str, version: int, newest: int) -> None:
        super().__init__(
            f"{place} was written by a newer responsed (tables of version {version}; this one reads up to {newest}): "
            "upgrade, or choose another place with --store"
        )


class OlderStore(StoreError):
    """The tables are missing, or those of an older version."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise each error of SQLite and of the file system as StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        advice = ADVICE.get(code(error), f"{error}; choose another file with --store")
        raise StoreError(f"{path}: {advice}") from error
    except OSError as error:
        raise StoreError(f"{path} ({error.strerror}) {UNWRITABLE}") from error


def code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for errors of Python's module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
