"""PostgreSQL's tables: those of SQLite under equal names, and the servers that share them.

`rowid` is the order of insertion, as in SQLite. The default of `owner` names the server of the connection.
"""

from server.store.schema import Schema

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
"""

SCHEMA = Schema(TABLES)
"""PostgreSQL's tables and their versions, in a schema of the database with the name `NAME`."""

NAME = "responsed"
