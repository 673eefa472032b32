"""Parts of a schema that are not verified: keywords that `schema` does not know, or whose value is malformed. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from server.verification import patterns

KINDS = ("object", "array", "string", "boolean", "null", "number", "integer")
"""Names of JSON types."""
UNKNOWN = ("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
SINGLE = ("additionalProperties", "propertyNames", "items", "additionalItems", "contains", "not", "if", "then", "else")
Check: TypeAlias = Callable[[Any], bool]


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_type(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and bool(names) and all(name in KINDS for name in names)


_COUNTS = ("Length", "Items", "Properties", "Contains")
FORMS: Mapping[str, Check] = {
    **dict.fromkeys(LISTS, lambda value: isinstance(value, list) and bool(value) and all(map(_is_schema, value))),
    **dict.fromkeys(MAPS, lambda value: isinstance(value, dict) and all(map(_is_schema, value.values()))),
    **dict.fromkeys(SINGLE, _is_schema),
    **{f"{bound}{name}": _is_count for bound in ("min", "max") for name in _COUNTS},
    **dict.fromkeys(("minimum", "maximum"), _is_number),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), _is_number),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "items": lambda value: _is_schema(value) or (isinstance(value, list) and all(map(_is_schema, value))),
    "required": _are_names,
    "dependentRequired": lambda value: isinstance(value, dict) and all(map(_are_names, value.values())),
    "enum": lambda value: isinstance(value, list),
    "type": _is_type,
    "pattern": lambda value: isinstance(value, str) and patterns.compiled(value) is not None,
    "uniqueItems": lambda value: isinstance(value, bool),
    "$ref": lambda value: isinstance(value, str),
}
"""Keyword -> check of its value."""


def unverified(schema: Any, resolves: Check, path: str = "") -> Iterator[str]:
    """Yield the paths. `resolves`: True for a reference whose target is in the schema."""
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if not _is_known(name, value) or (name == "$ref" and not resolves(value)):
            yield f"{path}{name}"
        elif name == "patternProperties":
            yield from (f"{path}{name}.{key}" for key in value if patterns.compiled(key) is None)
        yield from _inside(name, value, resolves, path)


def _is_known(name: str, value: Any) -> bool:
    """True if `schema` enforces a keyword with this value, or the keyword forbids nothing."""
    if name in UNKNOWN:
        return name.startswith("unevaluated") and value is True
    return name not in FORMS or FORMS[name](value)


def _inside(name: str, value: Any, resolves: Check, path: str) -> Iterator[str]:
    if name in SINGLE and isinstance(value, dict):
        yield from unverified(value, resolves, f"{path}{name}.")
    elif name in (*LISTS, "items") and isinstance(value, list):
        for index, each in enumerate(value):
            yield from unverified(each, resolves, f"{path}{name}.{index}.")
    elif name in MAPS and isinstance(value, dict):
        for key, each in value.items():
            yield from unverified(each, resolves, f"{path}{name}.{key}.")
