"""One step of the model: the prefixes that it copies and the tokens that it evaluates."""

from msgspec import Struct

from engine.model import BatchEntry


class PrefixCopy(Struct, frozen=True):
    """Replace the contents of slot `target` by the first `n` tokens of slot `source`."""

    source: int
    target: int
    n: int


class Step(Struct, frozen=True):
    """A step: first the copies, then the entries, at most one a slot. A step without entries is empty."""

    copies: tuple[PrefixCopy, ...] = ()
    entries: tuple[BatchEntry, ...] = ()
