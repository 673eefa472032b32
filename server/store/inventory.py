"""The stored entries, for the commands of `responsed store`: listed, read, deleted and vacuumed beside servers.

The tables are neither created nor migrated here: that is the server's part.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from msgspec import Struct

from server.store.eviction import DAY_SECONDS, Missing
from server.store.open_stores import OpenStore

ENTRIES = f"""
    SELECT entries.id, CASE WHEN responses.id IS NULL THEN 'conversation' ELSE 'response' END,
        coalesce(responses.status, ''), coalesce(responses.created_at, conversations.created_at),
        ((SELECT max(used) FROM entries) - used) / {DAY_SECONDS}, bytes, responses.previous, responses.conversation
    FROM entries LEFT JOIN responses USING (id) LEFT JOIN conversations USING (id)
"""
"""Query for the fields of `Entry`."""
BODY = {
    "response": "SELECT coalesce(response, first) FROM responses WHERE id = ?",
    "conversation": "SELECT metadata FROM conversations WHERE id = ?",
}
ITEMS = {
    "response": "SELECT items FROM responses WHERE id = ?",
    "conversation": "SELECT json FROM items WHERE conversation = ? ORDER BY place",
}


class Entry(Struct, frozen=True):
    """A stored response or conversation."""

    id: str
    kind: str
    """`response` or `conversation`."""
    status: str
    """Status of a response; empty for a conversation."""
    created_at: int
    unused_days: float
    """Days of serving between its last use and the last use of any entry."""
    bytes: int
    previous_response_id: str | None
    conversation: str | None


class Content(Struct, frozen=True):
    """Bodies of an entry, each encoded JSON."""

    body: bytes
    """Response, or metadata of a conversation."""
    items: Sequence[bytes]
    """All items of a conversation, or one list with the input items of a response."""


class Inventory:
    """The entries of one store. Every method may raise StoreError."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self.served = store.served
        self.shared = store.shared
        self.delete = store.delete
        self.vacuum = store.vacuum

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()

    def entries(self) -> list[Entry]:
        """Return all entries, the most recently used first."""
        return self._select("ORDER BY used DESC, entries.rowid DESC")

    def entry(self, entry_id: str) -> Entry:
        """Raises Missing."""
        found = self._select("WHERE entries.id = ?", entry_id)
        if not found:
            raise Missing(entry_id)
        return found[0]

    def content(self, entry: Entry) -> Content:
        ((body,),) = self._store.rows(BODY[entry.kind], entry.id)
        return Content(body, [each for (each,) in self._store.rows(ITEMS[entry.kind], entry.id)])

    def in_use(self) -> set[str]:
        """Return the ids of responses in progress and their conversations; none if no server runs."""
        return {row[0] for row in self._store.rows("SELECT id FROM held")} if self.served else set()

    def _select(self, condition: str, *values: object) -> list[Entry]:
        return [Entry(*row) for row in self._store.rows(f"{ENTRIES} {condition}", *values)]
