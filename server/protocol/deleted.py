"""Answer of `DELETE` on a stored response or a conversation."""

from msgspec import Struct


class Deleted(Struct, frozen=True):
    id: str
    object: str
    """Type of the deleted object: "response", or "conversation.deleted"."""
    deleted: bool = True
