"""`responsed` in a Response: what this server tells beyond the specifications. Data only."""

from msgspec import Struct


class Extensions(Struct, frozen=True, omit_defaults=True):
    """`responsed`: facts about a response that no specification has a field for. Absent where there are none."""

    skipped: tuple[str, ...] = ()
    """Fields, items, parts and tools of the request that had no effect."""
    unenforced: tuple[str, ...] = ()
    """Parts of schemas that the answer was not constrained by."""
    stop: str | None = None
    """Stop text at which the answer ended."""


NO_EXTENSIONS = Extensions()
