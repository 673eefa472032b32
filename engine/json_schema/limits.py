"""Limits of numbers, as llguidance enforces them (it has floats and 64-bit integers), and of lengths. Pure."""

import math
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise

from engine.json_schema.values import JSON

MAX_PERIOD = 10_000
"""Least common multiple of all `multipleOf`, without factors of 2 and 5: the automaton has as many states. A million
states take llguidance 7 s and half a GB, and its own limits don't count them."""

LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
OPPOSITES: Mapping[str, tuple[str, str, int]] = {
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}
"""Limit -> the type that it limits, the keyword of the opposite limit, and the difference of the two limits."""
_LARGEST_FLOAT = 2**63 - 1024
"""Largest float below 2**63."""


def clamped(key: str, limit: JSON, integer: bool) -> JSON:
    """Return a limit that llguidance accepts: limits of the 64-bit range, as code generators write them, move inwards.

    Dropping such a limit would admit invalid numbers. Clamping excludes about a thousand 64-bit integers next to the
    lowest one, and for numbers also next to the highest. Wider limits of numbers stay, and `is_enforced` rejects them.
    """
    if not isinstance(limit, int | float):
        return limit
    if key == "minimum" and (integer or limit >= -(2**63)):
        return max(limit, -_LARGEST_FLOAT)
    if key == "maximum" and not integer and limit <= 2**63:
        return min(limit, _LARGEST_FLOAT)
    return limit


def is_enforced(key: str, limit: JSON) -> bool:
    """True if llguidance enforces the limit or a tighter one. It reads limits as floats and integers in 64 bits."""
    if not isinstance(limit, int | float) or abs(limit) < 2**53:
        return True
    rounded = int(float(min(max(limit, -(2**64)), 2**64)))
    enforced = min(max(rounded, -(2**63)), 2**63 - 1)
    return (key == "minimum" and enforced >= limit) or (key == "maximum" and enforced <= limit)


def digits(value: int | float) -> int:
    """Return the decimal digits of a number without the point: 0.25 -> 25."""
    return int("".join(map(str, Decimal(repr(value)).as_tuple().digits)))


def gaps(type_: str, values: list[int | float]) -> list[JSON]:
    """Return schemas of the numbers that equal none of the values."""
    found: list[JSON] = []
    for least, most in pairwise([-math.inf, *sorted(values), math.inf]):
        limits = {"exclusiveMinimum": least, "exclusiveMaximum": most}
        found.append({"type": type_, **{key: value for key, value in limits.items() if math.isfinite(value)}})
    return found


def opposites(key: str, limit: JSON) -> list[JSON] | None:
    """Return the schemas of the values that a limit forbids; None if the limit is malformed."""
    if not isinstance(limit, int | float) or isinstance(limit, bool):
        return None
    type_, opposite, step = OPPOSITES[key]
    return [] if step < 0 and limit < 1 else [{"type": type_, opposite: limit + step}]
