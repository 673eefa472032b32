"""Cache slow results, bounded by their memory: applications send the same schemas and tools again and again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from copy import copy
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 1000
"""Bytes that an entry takes besides its key and its result."""


class CompileCache(Generic[K, V]):
    """Calls a slow function and caches its last results. Another thread may call `get` while the function runs."""

    def __init__(
        self, make: Callable[[K], V], errors: type[Exception], size: Callable[[K, V | None], int], max_bytes: int
    ) -> None:
        """Cache `make`, up to `max_bytes` in all; the last result always stays.

        `errors` are the exceptions of `make` that are cached too. `size` returns the bytes of a key and its result,
        which is None for an error.
        """
        self._make = make
        self._errors = errors
        self._size = size
        self._max_bytes = max_bytes
        self._entries: OrderedDict[K, tuple[V | Exception, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: K) -> V | None:
        """Return the cached result, or None if there is none. Raises a cached error."""
        found, _ = self._entries.get(key, (None, 0))
        with suppress(KeyError):  # the other thread may have dropped it
            self._entries.move_to_end(key)
        if isinstance(found, Exception):
            raise copy(found)  # a traceback refers to the whole request
        return found

    def __call__(self, key: K) -> V:
        if (cached := self.get(key)) is not None:
            return cached
        try:
            made = self._make(key)
        except self._errors as error:
            self._store(key, copy(error), self._size(key, None))
            raise
        self._store(key, made, self._size(key, made))
        return made

    def _store(self, key: K, result: V | Exception, size: int) -> None:
        _, replaced = self._entries.pop(key, (None, 0))
        self._bytes -= replaced
        self._entries[key] = result, ENTRY_BYTES + size
        self._bytes += ENTRY_BYTES + size
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._bytes -= dropped
