"""Results that took time to make, bounded by the memory they take: an application asks for the same again and again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from copy import copy
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY = 1000
"""Bytes of an entry besides its key and its result."""


class CompileCache(Generic[K, V]):
    """A function that takes its time, with its last results. Another thread may look at these while it is at work."""

    def __init__(
        self, make: Callable[[K], V], refusals: type[Exception], size: Callable[[K, V | None], int], most: int
    ) -> None:
        """`refusals`: exceptions that `make` raises, and would again. `size`: bytes of a key and its result, which is
        None for a refusal; all together take at most `most`, but the last result stays."""
        self._make = make
        self._refusals = refusals
        self._size = size
        self._most = most
        self._kept: OrderedDict[K, tuple[V | Exception, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: K) -> V | None:
        """None where it has to be made. Raises what it was refused with."""
        found, _ = self._kept.get(key, (None, 0))
        with suppress(KeyError):  # the other thread may have dropped it
            self._kept.move_to_end(key)
        if isinstance(found, Exception):
            raise copy(found)  # without the traceback, which would keep the whole request
        return found

    def __call__(self, key: K) -> V:
        if (known := self.get(key)) is not None:
            return known
        try:
            made = self._make(key)
        except self._refusals as error:
            self._keep(key, copy(error), self._size(key, None))
            raise
        self._keep(key, made, self._size(key, made))
        return made

    def _keep(self, key: K, result: V | Exception, size: int) -> None:
        _, replaced = self._kept.pop(key, (None, 0))
        self._bytes -= replaced
        self._kept[key] = result, ENTRY + size
        self._bytes += ENTRY + size
        while self._bytes > self._most and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= dropped
