"""Readers of a generation. It ends some time after the last one has left."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio


class Reader(Protocol):
    """Request that reads a generation."""

    @property
    def disconnect_reason(self) -> str:
        """Reason for which its client is gone, for the log."""


class Readers:
    def __init__(self, scope: trio.CancelScope) -> None:
        """`scope` gets a finite deadline while there is no reader."""
        self._scope = scope
        self._count = 0
        self.reason = ""
        """Reason for which the last reader left."""

    @contextmanager
    def reading(self, window: Callable[[], float], reader: Reader) -> Iterator[None]:
        """Count a reader. `window` returns the seconds from the last one's end to the deadline."""
        self._count += 1
        self._scope.deadline = math.inf
        try:
            yield
        finally:
            self._count -= 1
            self.reason = reader.disconnect_reason
            if not self._count:
                self._scope.deadline = trio.current_time() + window()

    @property
    def have_left(self) -> bool:
        """True if there is no reader, and one could still return."""
        return not self._count and self._scope.deadline < math.inf

    @property
    def are_gone(self) -> bool:
        """True if there is no reader, and the time for one to return has passed."""
        return not self._count and self._scope.deadline <= trio.current_time()
