"""A PostgreSQL database beside its servers: for reading, deleting and vacuuming."""

from collections.abc import Collection

from server.store.postgres import LIVING, PostgresDatabase

TABLES = "items, conversations, responses, entries"
SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
"""


class PostgresInventory:
    """Connection that is no server's; its methods are those of `inventory.OpenStore`."""

    def __init__(self, url: str, password: str | None) -> None:
        """Raises StoreError, also if the tables are missing or not those of this version."""
        self._database = PostgresDatabase(url, password)
        self.rows = self._database.rows
        self.close = self._database.close
        self.served = bool(self.rows(f"SELECT 1 FROM servers WHERE {LIVING}"))

    def delete(self, entry_ids: Collection[str]) -> None:
        """Delete entries together. Their bytes stay in PostgreSQL's files until `vacuum`."""
        with self._database.transaction():
            for each in entry_ids:
                self._database.change("DELETE FROM entries WHERE id = ?", each)

    def vacuum(self) -> tuple[int, int]:
        """Rewrite the tables without the deleted rows; return their bytes before and after."""
        before = self._size()
        self._database.change(f"VACUUM (FULL) {TABLES}")
        return before, self._size()

    def _size(self) -> int:
        ((size,),) = self.rows(SIZE)
        return int(size)
