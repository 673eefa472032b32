"""Responses and conversations in SQLite."""

from server.store.async_store import AsyncStore
from server.store.conversations import Conversation, StoredItem, split
from server.store.database import StoreError
from server.store.eviction import Limits, Missing
from server.store.responses import Store, Stored

__all__ = [
    "AsyncStore",
    "Conversation",
    "Limits",
    "Missing",
    "Store",
    "StoreError",
    "Stored",
    "StoredItem",
    "split",
]
