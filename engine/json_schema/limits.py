"""Limits of numbers, as llguidance enforces them: its numbers are floats, and its integers have 64 bits. Pure."""

from decimal import Decimal

from engine.json_schema.values import JSON

LARGEST_PERIOD = 10_000
"""Period of all `multipleOf` together: the automaton for one has as many states, but for factors of 2 and 5. A million
of them take llguidance 7 s and half a GB, and its own limits don't count them."""

LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LAST = 2**63 - 1024
"""The last float before those that an integer of 64 bits has no room for."""


def clamped(key: str, limit: JSON, integer: bool) -> JSON:
    """A limit as wide as 64 bits, as code generators write it, is brought in to the last one that llguidance takes.

    No limit at all would be looser. So some thousand integers of 64 bits can't be written, those next to the lowest; of
    a number, next to the highest too. A number's limit that is wider is refused, for too much would be lost.
    """
    if not isinstance(limit, int | float):
        return limit
    if key == "minimum" and (integer or limit >= -(2**63)):
        return max(limit, -_LAST)
    if key == "maximum" and not integer and limit <= 2**63:
        return min(limit, _LAST)
    return limit


def is_enforced(key: str, limit: JSON) -> bool:
    """Whether llguidance holds that limit, or a tighter one: to it, it is a float, and an integer has 64 bits."""
    if not isinstance(limit, int | float) or abs(limit) < 2**53:
        return True
    rounded = int(float(min(max(limit, -(2**64)), 2**64)))
    held = min(max(rounded, -(2**63)), 2**63 - 1)
    return (key == "minimum" and held >= limit) or (key == "maximum" and held <= limit)


def digits(value: int | float) -> int:
    """Its decimal digits, without the point: 0.25 -> 25."""
    return int("".join(map(str, Decimal(repr(value)).as_tuple().digits)))
