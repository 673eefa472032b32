"""The database at a place of `--store`."""

from os import urandom
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from server.store.database import Database
from server.store.inventory import Inventory
from server.store.open_stores import OpenPostgresStore, OpenSQLiteStore
from server.store.postgres import PostgresDatabase
from server.store.postgres_tables import Peer
from server.store.responses import SCHEMA
from server.store.sqlite import SQLiteDatabase


class PostgresURL(Struct, frozen=True):
    """Address of a PostgreSQL database."""

    url: str
    """URL without a password."""
    password: str | None = None
    """None: libpq looks it up (PostgreSQL's documentation, "The Password File")."""

    def __str__(self) -> str:
        return self.url


Place: TypeAlias = Path | PostgresURL
"""File of SQLite, or database of PostgreSQL."""


def open_database(place: Place, address: str = "") -> Database:
    """Open a database for a server, create or migrate its tables. Raises StoreError.

    `address`: URL at which other servers on the database reach this one.
    """
    if isinstance(place, Path):
        return SQLiteDatabase(place, SCHEMA)
    return PostgresDatabase(place.url, place.password, Peer(f"srv_{urandom(16).hex()}", address))


def open_inventory(place: Place) -> Inventory:
    """Open a database beside its servers. Raises StoreError."""
    if isinstance(place, Path):
        return Inventory(OpenSQLiteStore(place, SCHEMA))
    return Inventory(OpenPostgresStore(place.url, place.password))
