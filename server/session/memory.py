"""Latest response of each lane of each connection, so that the next request can continue it without a store.

OpenAI and Open Responses ("WebSocket Continuation") require the most recent response only. All connections share one
limit of bytes; beyond it, the responses that were used longest ago are forgotten.
"""

from collections.abc import Sequence

from msgspec import Raw, Struct

from server.prompt import Past


class Remembered(Struct, frozen=True):
    response_id: str
    past: Past
    """Conversation up to the response, and with it."""
    size: int

    @classmethod
    def of(cls, response_id: str, items: Sequence[Raw], root: str | None) -> "Remembered":
        return cls(response_id, Past(items, root or response_id), sum(memoryview(item).nbytes for item in items))


class ResponseMemory:
    def __init__(self, limit: int) -> None:
        """Remember `limit` bytes; another limit applies from the next response on."""
        self.limit = limit
        self._used = 0
        self._latest: dict[tuple[object, str | None], Remembered] = {}
        """Responses by connection and lane, the longest unused first."""

    def find(self, connection: object, response_id: str | None) -> Past | None:
        """Return the conversation up to a response, on any lane of the connection."""
        for key, remembered in self._latest.items():
            if key[0] == connection and remembered.response_id == response_id:
                self._latest[key] = self._latest.pop(key)
                return remembered.past
        return None

    def remember(self, connection: object, lane: str | None, remembered: Remembered) -> None:
        """Replace the lane's response. A response larger than the limit is not stored."""
        self._drop((connection, lane))
        self._latest[connection, lane] = remembered
        self._used += remembered.size
        while self._used > self.limit:
            self._drop(next(iter(self._latest)))

    def evict(self, connection: object, lane: str | None, response_id: str | None) -> None:
        """Forget the lane's response if it is this one."""
        remembered = self._latest.get((connection, lane))
        if remembered is not None and remembered.response_id == response_id:
            self._drop((connection, lane))

    def forget(self, connection: object) -> None:
        """Forget all responses of a connection."""
        for key in [key for key in self._latest if key[0] == connection]:
            self._drop(key)

    def _drop(self, key: tuple[object, str | None]) -> None:
        if (remembered := self._latest.pop(key, None)) is not None:
            self._used -= remembered.size
