"""PostgreSQL as the store's database: one connection, which is made again after it was lost.

Servers that share the database commit one after the other, by an advisory lock, as SQLite's transactions do. So none of
them sees a deadlock or has to repeat a transaction. A lost connection is an error for the transaction that it
interrupts; whatever begins next connects again.
"""

import importlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from server.store.database import Database, Row, Schema
from server.store.errors import StoreError
from server.store.postgres_tables import LOCK, NAME, SCHEMA, Peer, prepare

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

LEASE_SECONDS = 20
"""Seconds without a sign of life after which the others take a server for dead."""
LIVING = f"seen > clock_timestamp() - interval '{LEASE_SECONDS} s'"
"""SQL condition of servers that live."""
BEAT_SECONDS = 4.0
"""Least seconds between two signs of life; the next transaction gives one."""
RETRY_SECONDS = 1.0
"""Seconds from an attempt to connect that failed to the next one; requests in between fail at once."""

CONNECT = {
    "autocommit": True,
    "connect_timeout": 5,
    "application_name": "responsed",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
"""Parameters of libpq: the loss of the peer is noticed within 20 s."""

SETTINGS = f"""
    SET search_path = {NAME};
    SET lock_timeout = '10s';
    SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '5s';
"""
"""Settings of the session. A server that stops in a transaction delays the others for 5 s: less
than the lease, so that none of them seems dead."""

ADVICE = {
    "25006": "name the primary server, which can be written",
    "42501": f"grant the user CREATE on the database, or make a schema `{NAME}` that belongs to the user",
    "53100": "free some space on its disk",
    "55P03": "another server is in the middle of a transaction; try again later",
}
"""Remedies by SQLSTATE (PostgreSQL's documentation, appendix A)."""
PASSWORD = "write the password to ~/.pgpass or to systemd's credential postgres-password"
"""Remedy of a connection that is refused for its password; libpq has no SQLSTATE for it."""

log = logging.getLogger("responsed.store")


class PostgresDatabase(Database):
    """One connection to a database. It raises every error of psycopg as StoreError."""

    shared = True
    orphaned = f"(owner IS NULL OR owner NOT IN (SELECT id FROM servers WHERE {LIVING}))"

    def __init__(self, url: str, password: str | None, peer: Peer | None = None, schema: Schema = SCHEMA) -> None:
        """Connect, and create or migrate the tables for the server `peer`; None: the tables must exist.

        `url` has no password. Raises StoreError.
        """
        self._url = url
        self._password = password
        self._peer = peer
        self._schema = schema
        self._psycopg: Any = importlib.import_module("psycopg")
        self._write_failed = False
        """True if the last transaction failed in PostgreSQL."""
        self._in_transaction = False
        self._failure = f"{url}: the store is closed"
        """Message of the last attempt to connect."""
        self._beat_due = self._retry_at = float("-inf")
        self._connection: Connection = self._connect()

    def rows(self, sql: str, *values: object) -> list[Row]:
        with self._translated():
            return self._execute(sql, values).fetchall()

    def each(self, sql: str, *values: object) -> Iterator[Row]:
        """Yield the rows one by one, inside a transaction."""
        with self._translated(), self._connection.cursor(name="each") as cursor:
            yield from cursor.execute(sql.replace("?", "%s"), values)

    def change(self, sql: str, *values: object) -> int:
        with self._translated():
            return self._execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._write_failed, was_failed = True, self._write_failed
        with self._translated():
            self._execute("BEGIN")
            self._in_transaction = True
            try:
                self._execute("SELECT pg_advisory_xact_lock(?)", (LOCK,))
                if _now() >= self._beat_due:
                    self._beat()
                yield
                self._execute("COMMIT")
                self._write_failed = False
            except (self._psycopg.Error, StoreError):
                raise
            except BaseException:
                self._write_failed = was_failed  # the block's own exception has nothing to do with the database
                raise
            finally:
                self._in_transaction = False
                self._roll_back()

    def clock(self) -> float:
        ((seconds,),) = self.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(seconds)

    def owner(self, response_id: str) -> str | None:
        row = self.row(
            "SELECT address FROM responses JOIN servers ON servers.id = owner "
            f"WHERE responses.id = ? AND response IS NULL AND owner != ? AND {LIVING}",
            response_id,
            self._peer.id if self._peer else "",
        )
        return None if row is None else str(row[0])

    def servers(self) -> int:
        ((count,),) = self.rows(f"SELECT count(*) FROM servers WHERE {LIVING}")
        return int(count)

    def check_writable(self) -> None:
        """Raise StoreError if the connection is lost and does not come back, or the database cannot be written."""
        ((read_only,),) = self.rows("SELECT current_setting('transaction_read_only') = 'on'")
        if read_only:
            raise StoreError(f"{self._url}: the database is read-only; {ADVICE['25006']}")
        if self._write_failed:
            self._beat_due = float("-inf")
            with self.transaction():
                pass

    def close(self) -> None:
        """Take the server from the list of the living, and disconnect."""
        if self._peer is not None and not self._connection.closed:
            with suppress(self._psycopg.Error):
                self._connection.execute("DELETE FROM servers WHERE id = %s", (self._peer.id,))
        self._connection.close()
        self._retry_at = float("inf")

    def _execute(self, sql: str, values: tuple[object, ...] = ()) -> "Cursor[Row]":
        """Execute a statement. On a lost connection, connect and execute it again, unless it is in a transaction."""
        if self._connection.closed and not self._in_transaction:
            self._reconnect()
        try:
            return self._connection.execute(sql.replace("?", "%s"), values, binary=True)
        except self._psycopg.OperationalError as error:
            if self._in_transaction or not self._connection.closed:
                raise
            log.warning("%s: the connection is lost (%s)", self._url, _text(error))
            self._reconnect()
            return self._connection.execute(sql.replace("?", "%s"), values, binary=True)

    def _reconnect(self) -> None:
        if _now() < self._retry_at:
            raise StoreError(self._failure)
        self._retry_at = _now() + RETRY_SECONDS
        try:
            self._connection = self._connect()
        except StoreError as error:
            self._failure = str(error)
            raise
        self._retry_at = float("-inf")
        log.info("%s: connected again", self._url)

    def _connect(self) -> "Connection":
        """Return a new connection, whose tables are those of the schema. Raises StoreError."""
        with self._translated():
            connection: Connection = self._psycopg.connect(self._url, password=self._password, **CONNECT)
            try:
                connection.execute(SETTINGS)
                server = self._peer.id if self._peer else ""
                connection.execute("SELECT set_config('responsed.server', %s, false)", (server,))
                prepare(connection, self._schema, self._url, create=self._peer is not None)
            except BaseException:
                connection.close()
                raise
            self._beat_due = float("-inf")
            return connection

    def _beat(self) -> None:
        """Record a sign of life of this server."""
        self._beat_due = _now() + BEAT_SECONDS
        if self._peer is not None:
            self._execute(
                "INSERT INTO servers (id, address, seen) VALUES (?, ?, clock_timestamp()) "
                "ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp()",
                (self._peer.id, self._peer.address),
            )
            self._execute(f"DELETE FROM servers WHERE NOT {LIVING}")

    def _roll_back(self) -> None:
        """End a transaction that failed. Close a connection that cannot do that."""
        idle = self._psycopg.pq.TransactionStatus.IDLE
        if self._connection.closed or self._connection.info.transaction_status == idle:
            return
        try:
            self._connection.execute("ROLLBACK")
        except self._psycopg.Error:
            self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise each error of psycopg as StoreError."""
        try:
            yield
        except self._psycopg.Error as error:
            text = _text(error)
            advice = PASSWORD if "password" in text else "see --store and the log of PostgreSQL"
            raise StoreError(f"{self._url}: {text}; {ADVICE.get(error.sqlstate or '', advice)}") from error


def _now() -> float:
    """Return the seconds since the machine booted, with those in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _text(error: Exception) -> str:
    """Return the first line of an error, without a full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
