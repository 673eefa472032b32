"""Calls with effects that responses have made, so that none is made twice."""

from server.store.database import Database

OF_RESPONSES = """
    CREATE TABLE calls (
        key TEXT PRIMARY KEY,
        response TEXT NOT NULL REFERENCES responses ON DELETE CASCADE
    );
    CREATE INDEX calls_of ON calls (response);
"""
"""Calls, each with the response that made it."""
UNSTORED = """
    CREATE TABLE unstored_calls (number BIGINT PRIMARY KEY, key TEXT NOT NULL UNIQUE);
"""
"""Calls of responses that are not stored."""
MAX_UNSTORED = 10_000
LOST_RESULT = b""
"""Inputs of the stream of a response that is not stored."""


class CallRecords:
    """Tables of calls."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, key: str, response_id: str | None) -> bytes | None:
        """Record that a response makes a call; return the stream inputs of the response that made it before.

        They are LOST_RESULT for one that was not stored. `response_id` is None for a response that is not stored.
        """
        with self._database.transaction():
            row = self._database.row("SELECT cues FROM calls JOIN responses ON id = calls.response WHERE key = ?", key)
            if row is not None:
                inputs: bytes = row[0]
                return inputs
            if self._database.row("SELECT number FROM unstored_calls WHERE key = ?", key) is not None:
                return LOST_RESULT
            if response_id is not None:
                self._database.change("INSERT INTO calls VALUES (?, ?)", key, response_id)
                return None
            ((last,),) = self._database.rows("SELECT coalesce(max(number), 0) FROM unstored_calls")
            self._database.change("INSERT INTO unstored_calls VALUES (?, ?)", last + 1, key)
            self._database.change("DELETE FROM unstored_calls WHERE number <= ?", last + 1 - MAX_UNSTORED)
        return None
