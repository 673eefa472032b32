"""Types, equality and limits of JSON values by JSON schema. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from server.verification import patterns

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
}


def equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal: 1 equals 1.0, and no number equals a boolean."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def size_faults(size: int, schema: Mapping[str, Any], suffix: str, name: str) -> Iterator[str]:
    """Compare a number of items, properties or characters with its limits: `minItems` for the suffix `Items`."""
    if not schema.get(f"min{suffix}", 0) <= size <= schema.get(f"max{suffix}", size):
        yield f"it has {size} {name}"


def text_faults(value: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from size_faults(len(value), schema, "Length", "characters")
    if isinstance(pattern := schema.get("pattern"), str):
        regex = patterns.compiled(pattern)
        if regex is not None and not regex.search(value):
            yield f"it does not match the pattern {pattern!r}"


def number_faults(value: float, schema: Mapping[str, Any]) -> Iterator[str]:
    if "minimum" in schema and value < schema["minimum"]:
        yield f"it is less than {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"it is more than {schema['maximum']}"
    if "exclusiveMinimum" in schema and not isinstance(low := schema["exclusiveMinimum"], bool) and value <= low:
        yield f"it is not more than {low}"
    if "exclusiveMaximum" in schema and not isinstance(high := schema["exclusiveMaximum"], bool) and value >= high:
        yield f"it is not less than {high}"
    if (step := schema.get("multipleOf")) and not _is_multiple(value, step):
        yield f"it is no multiple of {step}"


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        quotient = value / step
    except OverflowError:
        return True
    return quotient == round(quotient)
