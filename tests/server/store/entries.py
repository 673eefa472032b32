"""Entries of a store, for tests and for the processes that they kill, which import little else."""

import json

from msgspec.structs import replace

from server.store.conversations import StoredItem
from server.store.eviction import Limits
from server.store.responses import Store, Stored

NOW = 1_000_000.0
AMPLE = Limits(count=1000, megabytes=64, days=30)
"""More than any test stores, but those that say so."""


def ended(first: bytes, inputs: bytes = b"[]") -> tuple[bytes, bytes]:
    """Return a failed Response and inputs, like the caller's function."""
    return b'{"failed":%s}' % first, inputs[:-1] + (b"," if inputs != b"[]" else b"") + b'"stopped"]'


def items(*ids: str) -> list[StoredItem]:
    return [StoredItem(each, b'{"id":"%s"}' % each.encode()) for each in ids]


def begun(name: str, previous: str | None = None, conversation: str | None = None, size: int = 0) -> Stored:
    """Return an unfinished response with the input item in_<name>, and `size` more characters in its Response."""
    first = json.dumps({"id": name, "text": "x" * size}).encode()
    return Stored(
        id=name,
        created_at=7,
        status="in_progress",
        first=first,
        response=first,
        items=b'[{"id":"in_%s"}]' % name.encode(),
        previous=previous,
        conversation=conversation,
    )


def finished(stored: Stored, status: str = "completed") -> Stored:
    return replace(stored, status=status, response=b'{"done":1}', inputs=b'["End"]')


def finish(keeper: Store, stored: Stored, now: float = NOW, status: str = "completed") -> Stored:
    whole = finished(stored, status)
    keeper.finish(stored.id, status, whole.response, whole.inputs, items(f"out_{stored.id}"), now)
    return whole


def put(keeper: Store, stored: Stored, now: float = NOW) -> Stored:
    keeper.begin(stored, now)
    return finish(keeper, stored, now)
