"""One step of the model: what it copies between slots, and what it evaluates."""

from msgspec import Struct

from engine.model import BatchEntry


class PrefixCopy(Struct, frozen=True):
    """Copy the first `n` tokens of what `source` holds to `target`, in place of all that is there."""

    source: int
    target: int
    n: int


class Step(Struct, frozen=True):
    """A step: first the shares, then the chunks, at most one a slot. Nothing to do without chunks."""

    copies: tuple[PrefixCopy, ...] = ()
    entries: tuple[BatchEntry, ...] = ()
