"""Deleted responses and conversations, whose prompts all servers of a database forget: each reads on in this list.

Numbers have no gaps, so that a server that was away for too long sees that it has missed some.
"""

from collections.abc import Sequence

from msgspec import Struct

from server.store.database import Database

TABLES = """
    CREATE TABLE deletions (
        number BIGINT PRIMARY KEY,
        id TEXT NOT NULL,
        affinity TEXT,
        server TEXT DEFAULT nullif(current_setting('responsed.server', true), '')
    );
"""
LISTED = 10_000
"""Maximum number of deletions in the list."""


class Deletion(Struct, frozen=True):
    """A deleted response or conversation, or an item of that."""

    id: str
    affinity: str | None
    """Affinity group of its prompts; None for all that may be on a disk."""


ALL = Deletion("", None)
"""Deletions that the list does not have any more."""


class Deletions:
    """The list. Without other servers it stays empty."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, deletion: Deletion) -> None:
        """Add a deletion in the caller's transaction."""
        if not self._database.shared:
            return
        ((number,),) = self._database.rows(
            "INSERT INTO deletions (number, id, affinity) "
            "SELECT coalesce(max(number), 0) + 1, ?::text, ?::text FROM deletions RETURNING number",
            deletion.id,
            deletion.affinity,
        )
        self._database.change("DELETE FROM deletions WHERE number <= ?", number - LISTED)

    def after(self, number: int | None) -> tuple[int, Sequence[Deletion]]:
        """Return the latest number, and what other servers have deleted since `number`; None: nothing, to begin with.

        Raises StoreError.
        """
        ((first, last),) = self._database.rows(
            "SELECT coalesce(min(number), 1), coalesce(max(number), 0) FROM deletions"
        )
        if number is None or number == last:
            return last, ()
        if not first - 1 <= number < last:  # it has missed some, or this is another database
            return last, (ALL,)
        rows = self._database.rows(
            "SELECT id, affinity FROM deletions WHERE number > ? AND number <= ? "
            "AND server IS DISTINCT FROM nullif(current_setting('responsed.server', true), '') ORDER BY number",
            number,
            last,
        )
        return last, [Deletion(*row) for row in rows]
