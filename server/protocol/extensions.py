"""Field `responsed` of a Response: facts beyond the specifications. Data only."""

from typing import Any

from msgspec import Struct, UnsetType
from msgspec.structs import replace


class Extensions(Struct, frozen=True, omit_defaults=True):
    """Facts about a response for which the specifications have no field."""

    skipped: tuple[str, ...] = ()
    """Fields, items, parts and tools of the request that had no effect."""
    unenforced: tuple[str, ...] = ()
    """Parts of schemas that were not enforced."""
    stop: str | None = None
    """Stop string that ended the output."""


NO_EXTENSIONS = Extensions()


def extended(extensions: Extensions | UnsetType, **facts: Any) -> Extensions:
    """Return `extensions` with more facts."""
    return replace(extensions if isinstance(extensions, Extensions) else NO_EXTENSIONS, **facts)
