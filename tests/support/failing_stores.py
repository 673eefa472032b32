"""Stores on disks that are full."""

from collections.abc import Sequence

from server.store.conversations import StoredItem
from server.store.errors import StoreError
from server.store.responses import Store, Stored


class FullAtOnce(Store):
    def begin(self, stored: Stored, now: float) -> None:
        raise StoreError("the disk is full")


class FullLater(Store):
    def finish(
        self, response_id: str, status: str, response: bytes, cues: bytes, made: Sequence[StoredItem], now: float
    ) -> None:
        raise StoreError("the disk is full")
