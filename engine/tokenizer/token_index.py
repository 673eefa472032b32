"""An index of a vocabulary's tokens by their bytes."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator


class TokenIndex:
    """Finds tokens by their bytes."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        """`texts` are the tokens' bytes, in order of ids; empty ones are not indexed."""
        self._ids: dict[bytes, list[int]] = {}
        for id_, text in enumerate(texts):
            if text:
                self._ids.setdefault(text, []).append(id_)
        self._sorted = sorted(self._ids)
        self._longest = max(map(len, self._ids), default=0)

    def encode_greedy(self, data: bytes) -> Iterator[int]:
        """Yield the longest token that matches, repeatedly; stop at a byte without a token."""
        while data:
            lengths = range(min(len(data), self._longest), 0, -1)
            length = next((length for length in lengths if data[:length] in self._ids), 0)
            if not length:
                return
            yield self._ids[data[:length]][0]
            data = data[length:]

    def starting_with(self, data: bytes) -> Iterator[int]:
        """Yield the tokens that start with `data`."""
        for index in range(bisect_left(self._sorted, data), len(self._sorted)):
            if not self._sorted[index].startswith(data):
                return
            yield from self._ids[self._sorted[index]]
