"""PostgreSQL's tables: those of SQLite under equal names, and the servers that share them.

`rowid` is the order of insertion, as in SQLite. The default of `owner` names the server of the connection.
"""

import logging
from typing import TYPE_CHECKING

from msgspec import Struct

from server.store import calls, deletions
from server.store.database import Schema
from server.store.errors import NewerStore, OlderStore

if TYPE_CHECKING:
    from psycopg import Connection

LOCK = 0x72737064
"""Key of the advisory lock of all writers ("rspd"). Each database has locks of its own."""

NAME = "responsed"
"""Name of the schema that has the tables."""

TABLES = """
    CREATE TABLE servers (
        id TEXT PRIMARY KEY,
        address TEXT NOT NULL,
        seen TIMESTAMPTZ NOT NULL
    );
    CREATE TABLE secrets (
        name TEXT PRIMARY KEY,
        value BYTEA NOT NULL
    );
    CREATE TABLE entries (
        id TEXT PRIMARY KEY,
        used DOUBLE PRECISION NOT NULL,
        bytes BIGINT NOT NULL,
        rowid BIGINT GENERATED ALWAYS AS IDENTITY
    );
    CREATE INDEX by_use ON entries (used, rowid);
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
        created_at BIGINT NOT NULL,
        metadata BYTEA NOT NULL
    );
    CREATE TABLE items (
        place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
        id TEXT NOT NULL,
        json BYTEA NOT NULL,
        UNIQUE (conversation, id)
    );
    CREATE INDEX by_place ON items (conversation, place);
    CREATE TABLE responses (
        id TEXT PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
        created_at BIGINT NOT NULL,
        status TEXT NOT NULL,
        first BYTEA NOT NULL,
        response BYTEA,
        cues BYTEA NOT NULL,
        items BYTEA NOT NULL,
        previous TEXT,
        conversation TEXT,
        owner TEXT DEFAULT nullif(current_setting('responsed.server', true), '')
    );
    CREATE INDEX unfinished ON responses (id, conversation) WHERE response IS NULL;
    CREATE VIEW held AS
        SELECT id FROM responses WHERE response IS NULL
        UNION SELECT conversation FROM responses WHERE response IS NULL AND conversation IS NOT NULL;
    CREATE TABLE calls (
        key TEXT PRIMARY KEY,
        response TEXT NOT NULL REFERENCES responses ON DELETE CASCADE
    );
    CREATE INDEX calls_of ON calls (response);
"""

TOTALS = """
    CREATE VIEW totals AS SELECT count(*) AS entries, coalesce(sum(bytes), 0)::bigint AS bytes FROM entries;
"""
"""SQLite's table as a view: PostgreSQL writes a version of a row at each update, thousands of them in an eviction."""

SCHEMA = Schema(TABLES + deletions.TABLES + calls.UNSTORED + TOTALS, steps=(deletions.TABLES, calls.UNSTORED, TOTALS))
"""PostgreSQL's tables and their versions."""

log = logging.getLogger("responsed.store")


class Peer(Struct, frozen=True):
    """A server that shares the database with others."""

    id: str
    address: str
    """URL at which the other servers reach it."""


def prepare(connection: "Connection", schema: Schema, place: str, create: bool) -> None:
    """Create or migrate the tables, or only check their version. Raises NewerStore, OlderStore."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        version = _version(connection)
        if version > schema.version:
            raise NewerStore(place, version, schema.version)
        if version == schema.version:
            return
        if not create:
            found = f"of an older version ({version})" if version else "missing"
            raise OlderStore(f"{place}: the tables are {found}; start the server, which makes them")
        if version:
            for number, step in schema.steps_after(version):
                connection.execute(step.encode())
                log.info("%s: migrated its tables to version %d", place, number)
        else:
            _create(connection, schema)
        connection.execute("UPDATE version SET number = %s", (schema.version,))


def _version(connection: "Connection") -> int:
    """Return the version of the tables; 0 if there are none."""
    if connection.execute("SELECT to_regclass(%s)", (f"{NAME}.version",)).fetchone() == (None,):
        return 0
    ((number,),) = connection.execute("SELECT number FROM version")
    return int(number)


def _create(connection: "Connection", schema: Schema) -> None:
    if connection.execute("SELECT to_regnamespace(%s)", (NAME,)).fetchone() == (None,):
        connection.execute(f"CREATE SCHEMA {NAME}")
    connection.execute(schema.tables.encode())
    connection.execute("CREATE TABLE version (number BIGINT NOT NULL); INSERT INTO version VALUES (1)")
