"""The database at a place of `--store`."""

from pathlib import Path

from server.store.database import Database
from server.store.inventory import Inventory
from server.store.responses import SCHEMA
from server.store.sqlite import SQLiteDatabase
from server.store.sqlite_file import SQLiteFile


def open_database(place: Path) -> Database:
    """Open a database for a server, create or migrate its tables. Raises StoreError."""
    return SQLiteDatabase(place, SCHEMA)


def open_inventory(place: Path) -> Inventory:
    """Open a database beside its servers. Raises StoreError."""
    return Inventory(SQLiteFile(place, SCHEMA))
