"""Access to the store's database, by SQL that SQLite and PostgreSQL both read. Values stand for `?`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

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
