"""Responses and conversations in SQLite or PostgreSQL."""

from server.store.async_store import AsyncStore
from server.store.calls import LOST_RESULT
from server.store.conversations import Conversation, Conversations, StoredItem, split
from server.store.deletions import Deletion
from server.store.errors import NewerStore, OlderStore, StoreError
from server.store.eviction import Limits, Missing, StoreUsage, TooLarge
from server.store.inventory import Entry, Inventory
from server.store.locations import Place, PostgresURL, open_database, open_inventory
from server.store.open_stores import check_openable
from server.store.responses import Store, Stored

__all__ = [
    "LOST_RESULT",
    "AsyncStore",
    "Conversation",
    "Conversations",
    "Deletion",
    "Entry",
    "Inventory",
    "Limits",
    "Missing",
    "NewerStore",
    "OlderStore",
    "Place",
    "PostgresURL",
    "Store",
    "StoreError",
    "StoreUsage",
    "Stored",
    "StoredItem",
    "TooLarge",
    "check_openable",
    "open_database",
    "open_inventory",
    "split",
]
