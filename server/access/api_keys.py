"""API keys of clients (RFC 6750, "Bearer Token Usage"). Pure."""

import hmac
from collections.abc import Mapping
from hashlib import sha256

from msgspec import Struct

from server.protocol.errors import Unauthorized


class ApiKey(Struct, frozen=True):
    """A key and the rules for its requests."""

    key: str
    is_batch: bool = False
    """True if all of its requests have the batch lane."""
    queue: int | None = None
    """Requests that may wait for a slot; None: half of the queue if there are other keys."""


class Caller(Struct, frozen=True):
    """The owner of a request's key."""

    name: str = ""
    """Name of the key; empty if the server needs none."""
    is_batch: bool = False
    queue: int | None = None
    shares_queue: bool = False
    """True if there are other keys."""

    def places(self, queue: int) -> int:
        """Return the number of requests that may wait in a queue with that many places."""
        share = (queue + 1) // 2 if self.shares_queue else queue
        return share if self.queue is None else min(self.queue, queue)


ANYBODY = Caller()


class ApiKeys:
    """Keys by the name of their owner. Only hashes remain in memory."""

    def __init__(self, keys: Mapping[str, ApiKey]) -> None:
        """`keys`: name -> key."""
        self._digests = {name: _digest(each.key) for name, each in keys.items()}
        shares = len(keys) > 1
        self._callers = {name: Caller(name, each.is_batch, each.queue, shares) for name, each in keys.items()}

    def __len__(self) -> int:
        return len(self._digests)

    def caller(self, authorization: str | None) -> Caller:
        """Return the owner of the key in an Authorization header. Raises Unauthorized.

        The header is compared with every key, each in constant time, so that the time of a refusal reveals nothing.
        """
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("This server needs an API key: send it as `Authorization: Bearer KEY`.")
        digest = _digest(key.strip())
        matches = [name for name, known in self._digests.items() if hmac.compare_digest(known, digest)]
        if not matches:
            raise Unauthorized("The API key is unknown: check it, or ask the operator of this server for one.")
        return self._callers[matches[0]]


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
