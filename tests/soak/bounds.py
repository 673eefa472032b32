"""Bounds of a soak: it ends after a number of attempts, or after a time."""

import time
from collections.abc import Iterator

from msgspec import Struct


class Bounds(Struct, frozen=True):
    """Number of attempts, and seconds."""

    count: int
    seconds: float = float("inf")

    def numbers(self) -> Iterator[int]:
        """Yield 0, 1, ... within both bounds. Several tasks may share the iterator."""
        end = time.monotonic() + self.seconds
        for number in range(self.count):
            if time.monotonic() > end:
                return
            yield number
