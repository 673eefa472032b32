"""Bodies of requests about conversations. Limits: OpenAI's API."""

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
