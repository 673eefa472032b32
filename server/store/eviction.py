"""What the store holds, as things with a size and a last use: the bounds, and who goes first when one is reached.

Ages count the time in which a server ran, by a monotonic clock: a box without a battery boots in the wrong year, and
neither that nor the jump to the right one may make an entry old. `used` goes on from the latest use in the file.
"""

from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

from server.store.database import Database, StoreError

SCHEMA = """
    CREATE TABLE entries (
        id TEXT PRIMARY KEY,
        used REAL NOT NULL,
        bytes INTEGER NOT NULL
    );
    CREATE INDEX by_use ON entries (used);
"""
"""Apart from what they stand for: a use is a small write, and sums read small rows."""

DAY = 86_400.0


class Limits(Struct, frozen=True):
    """Of responses and conversations together. What a server has unless it is told otherwise: `config`."""

    count: int
    megabytes: float
    """Of content; the file is larger by a little."""
    days: float
    """Of serving since the last use."""


class Missing(Exception):
    """There is nothing of that id (any more)."""

    def __init__(self, missing_id: str) -> None:
        super().__init__(f"{missing_id} is not stored")
        self.id = missing_id


class UsageIndex:
    """Rows that others hang on to (ON DELETE CASCADE). What changes them happens inside the caller's transaction."""

    def __init__(self, database: Database, limits: Limits, now: float) -> None:
        """`now`, here and below: seconds of a clock that never jumps; each server's may begin anywhere."""
        self._database = database
        ((latest,),) = database.rows("SELECT max(used) FROM entries")
        self._shift = 0.0 if latest is None else latest - now
        """What makes of this server's clock the file's."""
        self._limits = limits
        self._most_bytes = int(limits.megabytes * 1e6)

    def insert(self, entry_id: str, size: int, now: float) -> None:
        """Raises StoreError, also where it is larger than all that may be held."""
        self._check(entry_id, size)
        self._database.change(
            "INSERT INTO entries (id, used, bytes) VALUES (?, ?, ?)", entry_id, now + self._shift, size
        )

    def resize(self, entry_id: str, size: int, now: float) -> None:
        """The same for one that is there."""
        self._check(entry_id, size)
        self._database.change("UPDATE entries SET used = ?, bytes = ? WHERE id = ?", now + self._shift, size, entry_id)

    def try_to_use(self, entry_ids: Iterable[str], now: float) -> None:
        """A transaction of its own. A disk that is full keeps nobody from reading."""
        with suppress(StoreError), self._database.transaction():
            for entry_id in entry_ids:
                self._database.change("UPDATE entries SET used = ? WHERE id = ?", now + self._shift, entry_id)

    def remove(self, entry_id: str) -> bool:
        """Whether it was there."""
        return self._database.change("DELETE FROM entries WHERE id = ?", entry_id) > 0

    def evict(self, now: float, *spared: str | None) -> None:
        """Down to the limits, least recently used first; of those used at once, the first that came.

        Never what is still being made, nor the conversation it is made in.
        """
        ((count, size),) = self._database.rows("SELECT count(*), total(bytes) FROM entries")
        oldest = now + self._shift - self._limits.days * DAY
        held = {*spared, *(each for (each,) in self._database.rows("SELECT id FROM held"))}
        gone = []
        for entry_id, used, its_size in self._database.each("SELECT id, used, bytes FROM entries ORDER BY used, rowid"):
            if count <= self._limits.count and size <= self._most_bytes and used >= oldest:
                break
            if entry_id not in held:
                gone.append(entry_id)
                count -= 1
                size -= its_size
        for entry_id in gone:
            self.remove(entry_id)

    def _check(self, entry_id: str, size: int) -> None:
        if size > self._most_bytes:
            raise StoreError(
                f"{entry_id} has {size} bytes, more than all that may be stored: raise the limit of megabytes"
            )
