"""Stored responses. The methods block; `async_store` calls them from trio.

`begin` inserts a response, and `finish` completes it once. In between it is unfinished: its `response` is NULL.
Times are in seconds. Bytes are encoded JSON.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from engine.wording import counted
from server.store import calls, conversations, eviction
from server.store.calls import CallRecords
from server.store.conversations import Conversations, StoredItem, split
from server.store.database import Database, Schema
from server.store.deletions import Deletion, Deletions
from server.store.eviction import Limits, Missing, StoreUsage, TooLarge, UsageIndex

TABLES = f"""
    {eviction.SCHEMA}
    {conversations.SCHEMA}
    CREATE TABLE responses (
        id TEXT PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
        created_at INTEGER NOT NULL,
        status TEXT NOT NULL,
        first BLOB NOT NULL,
        response BLOB,
        cues BLOB NOT NULL,
        items BLOB NOT NULL,
        previous TEXT,
        conversation TEXT
    );
    CREATE INDEX unfinished ON responses (id, conversation) WHERE response IS NULL;
    CREATE VIEW held AS
        SELECT id FROM responses WHERE response IS NULL
        UNION SELECT conversation FROM responses WHERE response IS NULL AND conversation IS NOT NULL;
    {calls.OF_RESPONSES}
    {calls.UNSTORED}
    {eviction.TOTALS}
"""

SCHEMA = Schema(TABLES, steps=(calls.OF_RESPONSES, calls.UNSTORED, eviction.TOTALS))
"""SQLite's tables and their versions. Any change of `TABLES`, or of the JSON in them, needs a step."""

SELECT = """SELECT id, created_at, status, first, coalesce(response, first), cues, items, previous, conversation
    FROM responses"""

log = logging.getLogger("responsed.store")


class Stored(Struct, frozen=True, kw_only=True):
    """Stored response."""

    id: str
    created_at: int
    status: str
    """Status of `response`."""
    first: bytes
    """Response of the event `response.created`."""
    response: bytes
    """Current response; `first` until it ends."""
    inputs: bytes = b"[]"
    """Stream inputs (column `cues`), a JSON list, empty until the end; with `first` they reproduce the stream."""
    items: bytes
    """Input items of this turn, a JSON list of items with ids."""
    previous: str | None = None
    conversation: str | None = None

    @property
    def unfinished(self) -> bool:
        return self.status in ("queued", "in_progress")


Interrupted: TypeAlias = Callable[[bytes, bytes], tuple[bytes, bytes]]
"""Function of `first` and `inputs` of a response that a crash interrupted; it returns `response` and `inputs`."""


class Store:
    """Tables of responses and conversations. Each method is one transaction and may raise StoreError.

    Reading counts as a use; it works even if a full disk prevents recording the use.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits,
        interrupted: Interrupted,
        now: float,
    ) -> None:
        """Take over an open database, and end the responses that a crash left unfinished.

        `interrupted` returns `response` and `inputs` for the `first` and the stored inputs of such a response. `now`:
        see `UsageIndex`.
        """
        self._database = database
        self._interrupted = interrupted
        try:
            self._usage = UsageIndex(self._database, limits, now)
            self.deletions = Deletions(self._database)
            self.calls = CallRecords(self._database)
            self.conversations = Conversations(self._database, self._usage, self.deletions)
            with self._database.transaction():
                self._end_unfinished(now)
                self._usage.evict(now)
        except BaseException:
            self.close()
            raise

    def limit(self, limits: Limits) -> None:
        """Set the limits of the next evictions. Any thread may call this."""
        self._usage.limits = limits

    def begin(self, stored: Stored, now: float) -> None:
        """Insert an unfinished response. It and its conversation are not evicted until `finish`."""
        with self._database.transaction():
            self._usage.insert(stored.id, len(stored.first) + len(stored.items), now)
            self._database.change(
                "INSERT INTO responses (id, created_at, status, first, cues, items, previous, conversation) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                stored.id,
                stored.created_at,
                stored.status,
                stored.first,
                b"[]",
                stored.items,
                stored.previous,
                stored.conversation,
            )
            self._usage.evict(now, stored.id)

    def advance(self, response_id: str, inputs: bytes) -> None:
        """Store the inputs so far of an unfinished response, for the case of a crash."""
        with self._database.transaction():
            self._database.change(
                "UPDATE responses SET cues = ? WHERE id = ? AND response IS NULL", inputs, response_id
            )

    def finish(
        self,
        response_id: str,
        status: str,
        response: bytes,
        inputs: bytes,
        output_items: Sequence[StoredItem],
        now: float,
    ) -> None:
        """Complete a response and append this turn's items to its conversation, in one transaction.

        A conversation that was deleted meanwhile stays deleted. A failed turn leaves the conversation unchanged, since
        the client will retry. Raises Missing if the response is not unfinished.
        """
        with self._database.transaction():
            row = self._database.row(
                "SELECT items, conversation FROM responses WHERE id = ? AND response IS NULL", response_id
            )
            if row is None:
                raise Missing(response_id)
            items, conversation = row
            self._complete(response_id, status, response, inputs, now)
            if conversation is not None and status != "failed":
                self.conversations.append(conversation, [*split(items), *output_items], now)
            self._usage.evict(now, response_id, conversation)

    def get(self, response_id: str, now: float) -> Stored | None:
        stored = self._read(response_id)
        if stored:
            self._usage.record_uses([response_id], now)
        return stored

    def chain(self, response_id: str, now: float) -> list[Stored]:
        """Return the response after its ancestors, the oldest first. Raises Missing for the first one not found."""
        chain: list[Stored] = []
        next_id: str | None = response_id
        while next_id is not None:
            stored = self._read(next_id)
            if stored is None:
                raise Missing(next_id)
            chain.append(stored)
            next_id = stored.previous
        self._usage.record_uses([stored.id for stored in chain], now)
        return chain[::-1]

    def delete(self, response_id: str, deletion: Deletion | None = None) -> bool:
        """Delete a response; return False if it does not exist. Its successors lose their chain.

        `deletion`: what the other servers forget; None if its prompt may stay in their caches.
        """
        with self._database.transaction():
            found = self._database.row("SELECT 1 FROM responses WHERE id = ?", response_id) is not None
            if found:
                self._usage.remove(response_id)
                if deletion is not None:
                    self.deletions.add(deletion)
        return found

    @property
    def shared(self) -> bool:
        """True if other servers may use the store too."""
        return self._database.shared

    def owner(self, response_id: str) -> str | None:
        """Return the URL of another server that works on an unfinished response; None if there is none."""
        return self._database.owner(response_id)

    def keep_alive(self, now: float) -> None:
        """Let the other servers know that this one lives, and end the responses of those that died."""
        self._usage.synchronize(now)
        with self._database.transaction():
            self._end_unfinished(now)

    def shared_secret(self, name: str, made: bytes) -> bytes:
        """Return the secret of all servers that share the store: `made`, unless one of them was quicker."""
        with self._database.transaction():
            self._database.change(
                "INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", name, made
            )
            ((secret,),) = self._database.rows("SELECT value FROM secrets WHERE name = ?", name)
        value: bytes = secret
        return value

    def usage(self) -> StoreUsage:
        """Return the size of the store."""
        return self._usage.summary()

    def check_writable(self) -> None:
        """Raise StoreError if the file cannot be written at present."""
        self._database.check_writable()

    def close(self) -> None:
        self._database.close()

    def _read(self, response_id: str) -> Stored | None:
        row = self._database.row(f"{SELECT} WHERE id = ?", response_id)
        return Stored(**dict(zip(Stored.__struct_fields__, row, strict=True))) if row else None

    def _complete(self, response_id: str, status: str, response: bytes, inputs: bytes, now: float) -> None:
        self._database.change(
            "UPDATE responses SET status = ?, response = ?, cues = ? WHERE id = ?",
            status,
            response,
            inputs,
            response_id,
        )
        ((size,),) = self._database.rows(
            "SELECT length(first) + length(response) + length(cues) + length(items) FROM responses WHERE id = ?",
            response_id,
        )
        self._usage.resize(response_id, size, now)

    def _end_unfinished(self, now: float) -> None:
        """Mark unfinished responses as failed; remove those that `self._interrupted` cannot read, or too large then."""
        unfinished = self._database.rows(
            f"SELECT id, first, cues FROM responses WHERE response IS NULL AND {self._database.orphaned}"
        )
        if unfinished:
            log.warning("a process did not shut down: %s failed", counted(len(unfinished), "unfinished response"))
        for response_id, first, begun in unfinished:
            try:
                response, inputs = self._interrupted(first, begun)
                self._complete(response_id, "failed", response, inputs, now)
            except (ValueError, TooLarge) as error:  # one response must not close the store to all others
                log.warning("removed %s, whose unfinished record cannot be ended: %s", response_id, error)
                self._usage.remove(response_id)
