"""One step of the model: the prefixes that it saves, copies and restores, and the tokens that it evaluates."""

from typing import TypeAlias

from msgspec import Struct

from engine.model import BatchEntry, SavedState


class PrefixSave(Struct, frozen=True):
    """Save the tokens of a slot before they are overwritten."""

    slot: int
    tokens: tuple[int, ...]
    savable: int
    """Number of first tokens that may be written to a disk."""
    affinity: str
    keep_until: float = 0.0
    """See `engine.prefix_cache.node.Node`."""


class PrefixCopy(Struct, frozen=True):
    """Replace the contents of slot `target` by the first `n` tokens of slot `source`."""

    source: int
    target: int
    n: int


class PrefixRestore(Struct, frozen=True):
    """Replace the contents of slot `target` by tokens with saved states."""

    target: int
    tokens: tuple[int, ...]
    states: tuple[SavedState, ...]


Transfer: TypeAlias = PrefixSave | PrefixCopy | PrefixRestore


class Step(Struct, frozen=True):
    """A step: first the transfers in their order, then the entries, at most one a slot. A step without entries is
    empty."""

    transfers: tuple[Transfer, ...] = ()
    entries: tuple[BatchEntry, ...] = ()
