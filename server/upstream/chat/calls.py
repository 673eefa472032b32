"""Order of the calls of one answer: the call that each delta belongs to. Pure."""

from server.upstream.chat.chunks import AddedCall


class CallOrder:
    """The calls of an answer, of which the last one may be open.

    Servers without indexes send each call whole. Some servers give all calls the same index, but each an id of its own.
    """

    def __init__(self) -> None:
        self._indexes: set[int] = set()
        self._index = -1
        """Index of the last call."""
        self._id: str | None = None
        self.open = False

    @property
    def has_calls(self) -> bool:
        return bool(self._indexes)

    def begins(self, delta: AddedCall) -> bool:
        """Return whether a delta belongs to a call of its own."""
        if delta.index is None or delta.index not in self._indexes:
            return True
        named = delta.function is not None and delta.function.name
        return bool(named and delta.id and delta.id != self._id)

    def continues(self, delta: AddedCall) -> bool:
        """Return whether a delta belongs to the open call."""
        return self.open and delta.index == self._index

    def begin(self, delta: AddedCall) -> None:
        self._index = self._index + 1 if delta.index is None else delta.index
        self._id = delta.id
        self._indexes.add(self._index)
        self.open = True
