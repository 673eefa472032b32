"""Field `responsed` of a Response: facts beyond the specifications. Data only."""

from typing import Any

from msgspec import Struct, UnsetType
from msgspec.structs import replace

from server.protocol.prompt_cache import Reason


class PromptDifference(Struct, frozen=True, omit_defaults=True):
    """Place in the request at which its prompt begins to differ from an earlier one."""

    field: str
    character: int
    """Characters of the text before the difference."""
    text: str
    """A few words of the request around the difference, which is marked by `|`."""
    item: int | None = None
    """Index in the field's list."""
    type: str = ""
    """Type of the item."""


class CacheComparison(Struct, frozen=True, omit_defaults=True):
    """Comparison of a prompt with an earlier one."""

    response_id: str
    """Response with the earlier prompt."""
    reusable_tokens: int
    """Tokens before the first difference."""
    missed_tokens: int
    """Tokens behind it; 0 if the prompt continues the earlier one."""
    reason: Reason | None = None
    difference: PromptDifference | None = None
    evicted_tokens: int = 0
    """Reusable tokens that the KV cache had no longer."""


class Extensions(Struct, frozen=True, omit_defaults=True):
    """Facts about a response for which the specifications have no field."""

    skipped: tuple[str, ...] = ()
    """Fields, items, parts and tools of the request that had no effect."""
    unenforced: tuple[str, ...] = ()
    """Parts of schemas that were not enforced."""
    stop: str | None = None
    """Stop string that ended the output."""
    cache: CacheComparison | None = None
    """Comparison with an earlier prompt, if the request has `prompt_cache_options`."""


NO_EXTENSIONS = Extensions()


def extended(extensions: Extensions | UnsetType, **facts: Any) -> Extensions:
    """Return `extensions` with more facts."""
    return replace(extensions if isinstance(extensions, Extensions) else NO_EXTENSIONS, **facts)
