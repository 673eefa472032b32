"""Stored responses, in one SQLite file. Blocking; `archive` is the way here from trio.

A response is begun, then finished, once. Between the two `response` is NULL: that is what "still being made" means.
Times come in as seconds. Bytes are JSON, and stay bytes.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from server.store import conversations, eviction
from server.store.conversations import Conversations, StoredItem, split
from server.store.database import Database
from server.store.eviction import Limits, Missing, UsageIndex

VERSION = 1
"""Of the tables and of the JSON in them. A file of another one is put aside."""

SCHEMA = f"""
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
"""

SELECT = """SELECT id, created_at, status, first, coalesce(response, first), cues, items, previous, conversation
    FROM responses"""

log = logging.getLogger("responsed.store")


class Stored(Struct, frozen=True, kw_only=True):
    """What is kept of a response."""

    id: str
    created_at: int
    status: str
    """Of `response`."""
    first: bytes
    """The Response as `response.created` had it."""
    response: bytes
    """The Response as it is now; `first` until it ends."""
    cues: bytes = b"[]"
    """A list, empty until it ends: `first` and these make the same stream again."""
    items: bytes
    """A list: this turn's own input items, each with an id."""
    previous: str | None = None
    conversation: str | None = None

    @property
    def unfinished(self) -> bool:
        return self.status in ("queued", "in_progress")


class Store:
    """Each method is one transaction, and each raises StoreError where the disk doesn't do it.

    A read is also a use; one that can't be noted, because the disk is full, is a read all the same.
    """

    def __init__(self, path: Path, limits: Limits, ended: Callable[[bytes], tuple[bytes, bytes]], now: float) -> None:
        """`ended` makes `response` and `cues` of the `first` of one that was being made when the power went.

        `now`: see `UsageIndex`.
        """
        self._database = Database(path, SCHEMA, VERSION)
        self._entries = UsageIndex(self._database, limits, now)
        self.conversations = Conversations(self._database, self._entries)
        try:
            with self._database.transaction():
                self._end_unfinished(ended, now)
                self._entries.evict(now)
        except BaseException:
            self.close()
            raise

    def begin(self, stored: Stored, now: float) -> None:
        """One that is being made from now on; never evicted until it ends, nor is its conversation."""
        with self._database.transaction():
            self._entries.insert(stored.id, len(stored.first) + len(stored.items), now)
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
            self._entries.evict(now, stored.id)

    def finish(
        self, response_id: str, status: str, response: bytes, cues: bytes, made: Sequence[StoredItem], now: float
    ) -> None:
        """Its end, and this turn's items into its conversation: all of it or nothing.

        A conversation that has been deleted meanwhile gets nothing. One whose turn failed is left as it was, since the
        client will ask again. Raises Missing where no such response is being made.
        """
        with self._database.transaction():
            row = self._database.row(
                "SELECT items, conversation FROM responses WHERE id = ? AND response IS NULL", response_id
            )
            if row is None:
                raise Missing(response_id)
            items, conversation = row
            self._end(response_id, status, response, cues, now)
            if conversation is not None and status != "failed":
                self.conversations.append(conversation, [*split(items), *made], now)
            self._entries.evict(now, response_id, conversation)

    def get(self, response_id: str, now: float) -> Stored | None:
        stored = self._read(response_id)
        if stored:
            self._entries.try_to_use([response_id], now)
        return stored

    def chain(self, response_id: str, now: float) -> list[Stored]:
        """The oldest ancestor first, that response last; a use of all. Raises Missing, of the one that is not there."""
        chain: list[Stored] = []
        following: str | None = response_id
        while following is not None:
            stored = self._read(following)
            if stored is None:
                raise Missing(following)
            chain.append(stored)
            following = stored.previous
        self._entries.try_to_use([stored.id for stored in chain], now)
        return chain[::-1]

    def delete(self, response_id: str) -> bool:
        """Whether it was there. Those that go on from it can't be gone on from any more."""
        with self._database.transaction():
            found = self._database.row("SELECT 1 FROM responses WHERE id = ?", response_id) is not None
            if found:
                self._entries.remove(response_id)
        return found

    def close(self) -> None:
        self._database.close()

    def _read(self, response_id: str) -> Stored | None:
        row = self._database.row(f"{SELECT} WHERE id = ?", response_id)
        return Stored(**dict(zip(Stored.__struct_fields__, row, strict=True))) if row else None

    def _end(self, response_id: str, status: str, response: bytes, cues: bytes, now: float) -> None:
        self._database.change(
            "UPDATE responses SET status = ?, response = ?, cues = ? WHERE id = ?", status, response, cues, response_id
        )
        ((size,),) = self._database.rows(
            "SELECT length(first) + length(response) + length(cues) + length(items) FROM responses WHERE id = ?",
            response_id,
        )
        self._entries.resize(response_id, size, now)

    def _end_unfinished(self, ended: Callable[[bytes], tuple[bytes, bytes]], now: float) -> None:
        """What was being made when the power went has failed. What `ended` can't read is removed."""
        for response_id, first in self._database.rows("SELECT id, first FROM responses WHERE response IS NULL"):
            try:
                response, cues = ended(first)
            except ValueError as error:
                log.warning("%s was being made, and cannot be read any more: it is removed: %s", response_id, error)
                self._entries.remove(response_id)
            else:
                self._end(response_id, "failed", response, cues, now)
