"""Eviction: size and last use of each stored entry, and deletion of the least recently used beyond the limits.

Ages count the time in which a server ran, by a monotonic clock. A machine without a battery boots in the wrong year;
neither that nor the jump to the right year may age an entry. `used` continues from the latest use in the file.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

from server.store.database import Database
from server.store.errors import StoreError

SCHEMA = """
    CREATE TABLE entries (
        id TEXT PRIMARY KEY,
        used REAL NOT NULL,
        bytes INTEGER NOT NULL
    );
    CREATE INDEX by_use ON entries (used);
"""
"""Table of its own: recording a use writes little, and sums read small rows."""

TOTALS = """
    CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
    INSERT INTO totals SELECT count(*), coalesce(sum(bytes), 0) FROM entries;
    CREATE TRIGGER entry_inserted AFTER INSERT ON entries BEGIN
        UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes;
    END;
    CREATE TRIGGER entry_resized AFTER UPDATE OF bytes ON entries BEGIN
        UPDATE totals SET bytes = bytes + new.bytes - old.bytes;
    END;
    CREATE TRIGGER entry_deleted AFTER DELETE ON entries BEGIN
        UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes;
    END;
"""
"""One row, which SQLite updates with each entry: to count 100,000 entries takes 30 ms, at each write."""

DAY_SECONDS = 86_400.0

LINE_SECONDS = 60.0
"""Least seconds between two lines of the log: a full store evicts with each new response."""

log = logging.getLogger("responsed.store")


class Limits(Struct, frozen=True):
    """Limits of responses and conversations together."""

    count: int
    megabytes: float
    """Megabytes of content; the file is slightly larger."""
    days: float
    """Days of serving since the last use."""


class StoreUsage(Struct, frozen=True):
    """Size of the store."""

    entries: int
    bytes: int
    evictions: int
    """Number of entries that were evicted since the start."""
    servers: int = 1
    """Number of living servers that share the store."""


class Missing(Exception):
    """The store has no entry or item with this id."""

    def __init__(self, missing_id: str) -> None:
        super().__init__(f"{missing_id} is not stored")
        self.id = missing_id


class TooLarge(StoreError):
    """An entry alone exceeds the limit of bytes."""


class UsageIndex:
    """Table of entries, whose deletion cascades to other tables. Changes belong to the caller's transaction."""

    def __init__(self, database: Database, limits: Limits, now: float) -> None:
        """Start at `now`, in seconds of a monotonic clock, like every `now` below; the clock's origin may differ."""
        self._database = database
        self._shift = 0.0
        """Seconds to add to this server's clock for the database's time."""
        self.synchronize(now)
        self.limits = limits
        """Limits from the next eviction on."""
        self._evictions = 0
        """Number of evicted entries since the start."""
        self._unlogged = 0
        """Number of evicted entries since the last line of the log."""
        self._next_line = now

    @property
    def _max_bytes(self) -> int:
        return int(self.limits.megabytes * 1e6)

    def synchronize(self, now: float) -> None:
        """Continue from the database's clock, but never from before the latest use."""
        ((latest,),) = self._database.rows("SELECT max(used) FROM entries")
        self._shift = max((each for each in (latest, self._database.clock()) if each is not None), default=now) - now

    def summary(self) -> StoreUsage:
        ((count, size),) = self._database.rows("SELECT entries, bytes FROM totals")
        return StoreUsage(count, size, self._evictions, self._database.servers())

    def insert(self, entry_id: str, size: int, now: float) -> None:
        """Add an entry. Raises StoreError, TooLarge."""
        self._check(entry_id, size)
        self._database.change(
            "INSERT INTO entries (id, used, bytes) VALUES (?, ?, ?)", entry_id, now + self._shift, size
        )

    def resize(self, entry_id: str, size: int, now: float) -> None:
        """Record a new size and a use of an entry. Raises StoreError, TooLarge."""
        self._check(entry_id, size)
        self._database.change("UPDATE entries SET used = ?, bytes = ? WHERE id = ?", now + self._shift, size, entry_id)

    def record_uses(self, entry_ids: Iterable[str], now: float) -> None:
        """Record uses in a transaction of its own; ignore errors, since reading must work on a full disk."""
        with suppress(StoreError), self._database.transaction():
            for entry_id in entry_ids:
                self._database.change("UPDATE entries SET used = ? WHERE id = ?", now + self._shift, entry_id)

    def remove(self, entry_id: str) -> bool:
        """Remove an entry; return False if it did not exist."""
        return self._database.change("DELETE FROM entries WHERE id = ?", entry_id) > 0

    def evict(self, now: float, *pinned: str | None) -> None:
        """Delete entries down to the limits, the least recently used first; of equal uses, the oldest entry first.

        Never delete `pinned` entries, unfinished responses and their conversations.
        """
        ((count, size, first),) = self._database.rows(
            "SELECT entries, bytes, (SELECT coalesce(min(used), 0) FROM entries) FROM totals"
        )
        oldest = now + self._shift - self.limits.days * DAY_SECONDS
        if self._can_have(count, size) and first >= oldest:
            return
        protected = {*pinned, *(each for (each,) in self._database.rows("SELECT id FROM held"))}
        evicted = []
        for entry_id, used, entry_size in self._database.each(
            "SELECT id, used, bytes FROM entries ORDER BY used, rowid"
        ):
            if self._can_have(count, size) and used >= oldest:
                break
            if entry_id not in protected:
                evicted.append(entry_id)
                count -= 1
                size -= entry_size
        for entry_id in evicted:
            self.remove(entry_id)
        self._evictions += len(evicted)
        self._log(len(evicted), now)

    def _can_have(self, count: int, size: int) -> bool:
        """True if so many entries of so many bytes in all are within the limits."""
        return count <= self.limits.count and size <= self._max_bytes

    def _log(self, n_evicted: int, now: float) -> None:
        self._unlogged += n_evicted
        if self._unlogged and now >= self._next_line:
            log.info(
                "evicted %d of the stored responses and conversations, the least recently used, "
                "down to %d entries, %g MB and %g days",
                self._unlogged,
                self.limits.count,
                self.limits.megabytes,
                self.limits.days,
            )
            self._unlogged, self._next_line = 0, now + LINE_SECONDS

    def _check(self, entry_id: str, size: int) -> None:
        if size > self._max_bytes:
            raise TooLarge(
                f"{entry_id} has {size} bytes, more than the limit of the whole store; raise --store-megabytes"
            )
