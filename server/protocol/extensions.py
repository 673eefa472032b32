"""`responsed` in a Response: what this server tells beyond the specifications. Data only."""

from typing import Any

from msgspec import Struct, UnsetType
from msgspec.structs import replace


class Extensions(Struct, frozen=True, omit_defaults=True):
    """`responsed`: facts about a response that no specification has a field for. Absent where there are none."""

    skipped: tuple[str, ...] = ()
    """Fields, items, parts and tools of the request that had no effect."""
    unenforced: tuple[str, ...] = ()
    """Parts of schemas that the answer was not constrained by."""
    stop: str | None = None
    """Stop text at which the answer ended."""


NO_EXTENSIONS = Extensions()


def extended(extensions: Extensions | UnsetType, **facts: Any) -> Extensions:
    """`extensions` with more facts in them."""
    return replace(extensions if isinstance(extensions, Extensions) else NO_EXTENSIONS, **facts)
