"""Many short texts as bytes, in one object: the tokens of a vocabulary."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate


class PackedBytes:
    """A sequence of texts as bytes. 260,000 tokens take 3 MB instead of 15."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        found = list(texts)
        self._data = b"".join(found)
        self._ends = array("I", accumulate(map(len, found), initial=0))
        self.longest = max(map(len, found), default=0)
        """Bytes of the longest text."""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        if index < 0:
            raise IndexError(f"there is no text {index}")
        ends = self._ends  # which raise IndexError beyond the last one
        return self._data[ends[index] : ends[index + 1]]

    def containing(self, data: bytes) -> Iterator[int]:
        """Yield the indexes of the texts that contain `data`, which is not empty."""
        at = self._data.find(data)
        while at >= 0:
            index = bisect_right(self._ends, at) - 1
            end = self._ends[index + 1]
            if at + len(data) <= end:
                yield index
                at = self._data.find(data, end)
            else:  # it begins in one text and ends in another
                at = self._data.find(data, at + 1)

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self._ends[1:]:
            yield self._data[start:end]
            start = end
