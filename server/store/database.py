"""Access to the store's database, by SQL that SQLite and PostgreSQL both read, and the versions of its tables.

Values stand for `?`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

Row: TypeAlias = tuple[Any, ...]


class Database(Protocol):
    """One connection, for one thread at a time. Every method raises errors of the database as StoreError."""

    orphaned: str
    """SQL condition of unfinished responses that no server works on any more."""

    shared: bool = False
    """True if several servers may use the database at a time."""

    def rows(self, sql: str, *values: object) -> list[Row]: ...

    def each(self, sql: str, *values: object) -> Iterator[Row]:
        """Yield the rows one by one, for callers that may stop early."""
        ...

    def row(self, sql: str, *values: object) -> Row | None:
        return next(iter(self.rows(sql, *values)), None)

    def change(self, sql: str, *values: object) -> int:
        """Execute a change and return the number of changed rows."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Commit the block's changes together, or none of them. One transaction runs at a time, of all servers."""
        ...

    def clock(self) -> float | None:
        """Return the database's time in seconds; None if it has no clock."""
        ...

    def owner(self, response_id: str) -> str | None:
        """Return the URL of another server, which lives and works on an unfinished response; None if there is none."""
        return None

    def servers(self) -> int:
        """Return the number of living servers that use the database."""
        return 1

    def check_writable(self) -> None:
        """Raise StoreError if the database cannot be written at present."""
        ...

    def close(self) -> None: ...


class Schema(Struct, frozen=True):
    """Tables of the current version, and all steps that lead there from the first released version, which is 1.

    A released step never changes. Each runs in one transaction with its version number, so a crash leaves the file in
    the version before or after it.
    """

    tables: str
    """Statements that create the tables of the current version."""
    steps: tuple[str, ...] = ()
    """Statements from version 1 to 2, from 2 to 3, and so on."""

    @property
    def version(self) -> int:
        return 1 + len(self.steps)

    def steps_after(self, version: int) -> list[tuple[int, str]]:
        """Return (version after the step, step) from `version` to the current one."""
        return list(enumerate(self.steps[version - 1 :], version + 1))
