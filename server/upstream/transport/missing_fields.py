"""Fields that an upstream lacks. Pure."""

from collections.abc import Sequence

from msgspec import Struct

MIN_TOP_P = 1e-6
"""Instead of a `top_p` of 0, which vLLM and SGLang refuse: only the most likely token is left."""


class MissingFields(Struct, frozen=True):
    """Fields of its API that an upstream lacks."""

    refused: frozenset[str] = frozenset()
    """It answers with an error if they are sent."""
    ignored: frozenset[str] = frozenset()
    """They have no effect."""

    @property
    def all(self) -> frozenset[str]:
        return self.refused | self.ignored

    def __str__(self) -> str:
        parts = (("refuses", self.refused), ("ignores", self.ignored))
        return "; ".join(f"{verb} {', '.join(sorted(names))}" for verb, names in parts if names)


def lacking_anywhere(several: Sequence[MissingFields]) -> MissingFields:
    """Return the fields that at least one of several upstreams lacks."""
    return MissingFields(
        frozenset[str]().union(*(each.refused for each in several)),
        frozenset[str]().union(*(each.ignored for each in several)),
    )
