"""Bodies of requests about conversations, and the answer of `DELETE`. Limits: OpenAI's API."""

from typing import Annotated, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from server.protocol.request import Metadata

Items: TypeAlias = Annotated[list[Raw], Meta(max_length=20)]


class Creation(Struct, frozen=True):
    """Body of `POST /v1/conversations`."""

    items: Items | None = None
    metadata: Metadata | None = None


class Change(Struct, frozen=True):
    """Body of `POST /v1/conversations/{id}`. The metadata replace all earlier ones."""

    metadata: Metadata | UnsetType | None = UNSET


class Addition(Struct, frozen=True):
    """Body of `POST /v1/conversations/{id}/items`."""

    items: Items | None = None


class Deleted(Struct, frozen=True):
    """Answer of `DELETE` on a stored response or a conversation."""

    id: str
    object: str
    """Type of the deleted object: "response", or "conversation.deleted"."""
    deleted: bool = True
