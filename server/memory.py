"""What was made before: an application asks for the same again and again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from copy import copy
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """A function that takes its time, with its last results. Another thread may look at these while it is at work."""

    def __init__(self, make: Callable[[K], V], refusals: type[Exception], most: int) -> None:
        """`refusals`: what it raises, and would again."""
        self._make = make
        self._refusals = refusals
        self._most = most
        self._kept: OrderedDict[K, V | Exception] = OrderedDict()

    def known(self, key: K) -> V | None:
        """None where it has to be made. Raises what it was refused with."""
        found = self._kept.get(key)
        with suppress(KeyError):  # the other thread may have dropped it
            self._kept.move_to_end(key)
        if isinstance(found, Exception):
            raise copy(found)  # without the traceback, which would keep the whole request
        return found

    def __call__(self, key: K) -> V:
        if (known := self.known(key)) is not None:
            return known
        try:
            self._kept[key] = made = self._make(key)
        except self._refusals as error:
            self._kept[key] = copy(error)
            raise
        finally:
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made
