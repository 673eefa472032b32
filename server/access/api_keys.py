"""API keys of clients (RFC 6750, "Bearer Token Usage"). Pure."""

import hmac
from collections.abc import Mapping
from hashlib import sha256

from server.protocol.errors import Unauthorized


class ApiKeys:
    """Keys by the name of their owner. Only hashes remain in memory."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys`: name -> key."""
        self._digests = {name: _digest(key) for name, key in keys.items()}

    def __len__(self) -> int:
        return len(self._digests)

    def owner(self, authorization: str | None) -> str:
        """Return the name of the key in an Authorization header. Raises Unauthorized.

        The header is compared with every key, each in constant time, so that the time of a refusal tells nothing.
        """
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("This server needs an API key: send it as `Authorization: Bearer KEY`.")
        digest = _digest(key.strip())
        matches = [name for name, known in self._digests.items() if hmac.compare_digest(known, digest)]
        if not matches:
            raise Unauthorized("The API key is unknown: check it, or ask the operator of this server for one.")
        return matches[0]


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
