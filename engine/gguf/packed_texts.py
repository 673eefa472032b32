"""Texts of a list in a GGUF file, decoded when they are read."""

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

LENGTH_BYTES = 8
"""Bytes of the length before each text in a file."""


class PackedTexts(Sequence[str]):
    """A list of texts as in the file. 49,000 tokens and as many merges take 2 MB instead of 8.

    Texts are decoded with "surrogateescape", since raw-byte tokens need not be UTF-8: encoding them in the same way
    restores the file's bytes.
    """

    def __init__(self, data: bytes, ends: "array[int]") -> None:
        """`data`: each text after its length. `ends`: the end of each text in `data`, after a 0."""
        self._data = data
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self._data[self._ends[at] + LENGTH_BYTES : self._ends[at + 1]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        data, start = self._data, LENGTH_BYTES
        for end in self._ends[1:]:
            yield data[start:end].decode("utf-8", "surrogateescape")
            start = end + LENGTH_BYTES
