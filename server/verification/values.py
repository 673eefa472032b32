"""Types, equality and limits of JSON values by JSON schema. Pure."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from engine.wording import counted
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


def type_faults(value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """Compare a value with the types and values that a schema lists."""
    types = schema.get("type")
    if types is not None and not _is_of([types] if isinstance(types, str) else types, value):
        yield f"it is not of the type {types}"
    if "const" in schema and not equal(value, schema["const"]):
        yield "it is not the value of `const`"
    if "enum" in schema and not any(equal(value, each) for each in schema["enum"]):
        yield "it is none of the values of `enum`"


def _is_of(types: Iterable[str], value: Any) -> bool:
    return any(TYPES[each](value) for each in types if each in TYPES)


def size_faults(size: int, schema: Mapping[str, Any], suffix: str, name: str, plural: str = "") -> Iterator[str]:
    """Compare a number of items, properties or characters with its limits: `minItems` for the suffix `Items`."""
    if not schema.get(f"min{suffix}", 0) <= size <= schema.get(f"max{suffix}", size):
        yield f"it has {counted(size, name, plural)}"


def text_faults(value: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from size_faults(len(value), schema, "Length", "character")
    if isinstance(pattern := schema.get("pattern"), str):
        regex = patterns.compiled(pattern)
        if regex is not None and not regex.search(value):
            yield f"it does not match the pattern {pattern!r}"


def number_faults(value: float, schema: Mapping[str, Any]) -> Iterator[str]:
    for keyword, (is_outside, words) in _LIMITS.items():
        if keyword in schema and is_outside(value, schema[keyword]):
            yield f"it is {words} {schema[keyword]}"
    if (step := schema.get("multipleOf")) and not _is_multiple(value, step):
        yield f"it is not a multiple of {step}"


_LIMITS: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    "minimum": (operator.lt, "less than"),
    "maximum": (operator.gt, "more than"),
    "exclusiveMinimum": (lambda value, limit: not isinstance(limit, bool) and value <= limit, "not more than"),
    "exclusiveMaximum": (lambda value, limit: not isinstance(limit, bool) and value >= limit, "not less than"),
}
"""Keyword -> comparison that is true for a number outside of the limit, and the words for it."""


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        quotient = value / step
        return quotient == round(quotient)
    except OverflowError:  # more than any float, or infinite
        return True
