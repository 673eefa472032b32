"""Stored conversations: metadata, and items in the order of their arrival."""

import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from server.store.database import Database
from server.store.deletions import Deletion, Deletions
from server.store.eviction import Missing, UsageIndex

SCHEMA = """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
        created_at INTEGER NOT NULL,
        metadata BLOB NOT NULL
    );
    CREATE TABLE items (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
        id TEXT NOT NULL,
        json BLOB NOT NULL,
        UNIQUE (conversation, id)
    );
"""

NO_LIMIT = sys.maxsize
"""Rows to read if all are wanted."""


class Conversation(Struct, frozen=True):
    id: str
    created_at: int
    metadata: bytes
    """JSON object."""


class StoredItem(Struct, frozen=True):
    id: str
    json: bytes


class _WithId(Struct):
    id: str


def split(items: bytes) -> list[StoredItem]:
    """Split a JSON list of items, each of which has an id."""
    raw = [bytes(each) for each in msgspec.json.decode(items, type=list[msgspec.Raw])]
    return [StoredItem(msgspec.json.decode(each, type=_WithId).id, each) for each in raw]


class Page(Struct, frozen=True):
    items: list[StoredItem]
    more: bool
    """True if more items follow."""


class Conversations:
    """Table of conversations. Each method is one transaction and may raise StoreError."""

    def __init__(self, database: Database, usage: UsageIndex, deletions: Deletions) -> None:
        self._database = database
        self._usage = usage
        self._deletions = deletions

    def create(self, conversation: Conversation, items: Sequence[StoredItem], now: float) -> None:
        with self._database.transaction():
            self._usage.insert(conversation.id, len(conversation.metadata), now)
            self._database.change(
                "INSERT INTO conversations (id, created_at, metadata) VALUES (?, ?, ?)",
                conversation.id,
                conversation.created_at,
                conversation.metadata,
            )
            self.append(conversation.id, items, now)
            self._usage.evict(now, conversation.id)

    def get(self, conversation_id: str, now: float) -> Conversation | None:
        row = self._database.row("SELECT id, created_at, metadata FROM conversations WHERE id = ?", conversation_id)
        if row is None:
            return None
        self._usage.record_uses([conversation_id], now)
        return Conversation(*row)

    def update(self, conversation_id: str, metadata: bytes, now: float) -> bool:
        """Replace the metadata; return False if the conversation does not exist."""
        with self._database.transaction():
            changed = self._database.change(
                "UPDATE conversations SET metadata = ? WHERE id = ?", metadata, conversation_id
            )
            self._update_size(conversation_id, now)
            self._usage.evict(now, conversation_id)
        return changed > 0

    def delete(self, conversation_id: str) -> bool:
        """Delete a conversation and its items; return False if it does not exist."""
        with self._database.transaction():
            found = self._exists(conversation_id)
            if found:
                self._usage.remove(conversation_id)
                self._deletions.add(Deletion(conversation_id, conversation_id))
        return found

    def add(self, conversation_id: str, items: Sequence[StoredItem], now: float) -> None:
        """Append items in a transaction of its own. Raises Missing."""
        with self._database.transaction():
            if not self.append(conversation_id, items, now):
                raise Missing(conversation_id)
            self._usage.evict(now, conversation_id)

    def append(self, conversation_id: str, items: Sequence[StoredItem], now: float) -> bool:
        """Append items in the caller's transaction; return False if the conversation does not exist.

        An item with a known id replaces the older one and moves to the end.
        """
        if not self._exists(conversation_id):
            return False
        for item in items:
            self._database.change("DELETE FROM items WHERE conversation = ? AND id = ?", conversation_id, item.id)
            self._database.change(
                "INSERT INTO items (conversation, id, json) VALUES (?, ?, ?)", conversation_id, item.id, item.json
            )
        self._update_size(conversation_id, now)
        return True

    def items(
        self,
        conversation_id: str,
        now: float,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Return the items after `after`, at most `limit`. Raises Missing for the conversation or `after`."""
        if not self._exists(conversation_id):
            raise Missing(conversation_id)
        sql, values = "SELECT id, json FROM items WHERE conversation = ?", [conversation_id]
        if after is not None:
            place = self._database.row(
                "SELECT place FROM items WHERE conversation = ? AND id = ?", conversation_id, after
            )
            if place is None:
                raise Missing(after)
            sql, values = f"{sql} AND place {'<' if newest_first else '>'} ?", [*values, *place]
        sql = f"{sql} ORDER BY place {'DESC' if newest_first else 'ASC'} LIMIT ?"
        rows = self._database.rows(sql, *values, NO_LIMIT if limit is None else limit + 1)
        self._usage.record_uses([conversation_id], now)
        return Page([StoredItem(*row) for row in rows[:limit]], more=limit is not None and len(rows) > limit)

    def item(self, conversation_id: str, item_id: str) -> StoredItem | None:
        row = self._database.row(
            "SELECT id, json FROM items WHERE conversation = ? AND id = ?", conversation_id, item_id
        )
        return StoredItem(*row) if row else None

    def delete_item(self, conversation_id: str, item_id: str, now: float) -> bool:
        """Delete an item; return False if it does not exist."""
        with self._database.transaction():
            changed = self._database.change(
                "DELETE FROM items WHERE conversation = ? AND id = ?", conversation_id, item_id
            )
            self._update_size(conversation_id, now)
            if changed:
                self._deletions.add(Deletion(conversation_id, conversation_id))
        return changed > 0

    def _exists(self, conversation_id: str) -> bool:
        return self._database.row("SELECT 1 FROM conversations WHERE id = ?", conversation_id) is not None

    def _update_size(self, conversation_id: str, now: float) -> None:
        """Record the current size of a conversation, and a use."""
        for (size,) in self._database.rows(
            "SELECT length(metadata) + (SELECT coalesce(sum(length(json)), 0) FROM items WHERE conversation = "
            "conversations.id) FROM conversations WHERE id = ?",
            conversation_id,
        ):
            self._usage.resize(conversation_id, size, now)
