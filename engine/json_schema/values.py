"""JSON values, their JSON schema types, and the keywords of schemas. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeGuard

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Schema: TypeAlias = dict[str, "JSON"]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
"""Names of all types; an integer is a number too."""

ANNOTATIONS = ("title", "description", "examples", "default", "$comment", "$schema", "deprecated")
"""Keywords that forbid nothing, as schema generators write them."""

SUPPORTED = frozenset(
    (
        *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
        *("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties"),
        *("items", "prefixItems", "minItems", "maxItems"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""Keywords that are enforced, some of them within bounds; see llguidance's `docs/json_schema.md`."""

UNSUPPORTED = frozenset(
    (
        *("not", "if", "then", "else", "dependencies", "dependentRequired", "dependentSchemas"),
        *("additionalItems", "contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems"),
        *("propertyNames", "unevaluatedProperties", "$dynamicRef", "$recursiveRef", "x-guidance"),
    )
)
"""Keywords that forbid something and are rejected. The last one would loosen the whole schema."""

ENFORCED = SUPPORTED | UNSUPPORTED
"""Keywords that forbid something."""

_ARRAY_KEYWORDS = ("contains", "minContains", "maxContains", "unevaluatedItems")
_OBJECT_KEYWORDS = (
    *("minProperties", "maxProperties", "propertyNames", "unevaluatedProperties"),
    *("dependencies", "dependentRequired", "dependentSchemas"),
)
TYPES_OF_KEYWORDS: Mapping[str, frozenset[str]] = {
    key: frozenset(types.split())
    for types, keys in {
        "number integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        "string": ("minLength", "maxLength", "pattern", "format"),
        "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", *_ARRAY_KEYWORDS),
        "object": ("required", "properties", "patternProperties", "additionalProperties", *_OBJECT_KEYWORDS),
    }.items()
    for key in keys
}
"""Types to which a keyword applies. Other keywords apply to all."""


def without(schema: Schema, *keys: str) -> Schema:
    """Return the schema without some of its keywords."""
    return {key: value for key, value in schema.items() if key not in keys}


def with_all_of(schema: Schema, added: list[JSON]) -> Schema:
    """Return the schema with more entries in `allOf`; unchanged if its `allOf` is not a list."""
    others = schema.get("allOf", [])
    return {**schema, "allOf": [*others, *added]} if isinstance(others, list) else schema


def any_of(alternatives: list[JSON]) -> JSON:
    """Return a schema of the values that match one of several schemas; False if there are none."""
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives} if alternatives else False


def property_of(schema: Schema, name: str) -> JSON:
    """Return the schema of a property that is named; None otherwise."""
    properties = schema.get("properties")
    return properties.get(name) if isinstance(properties, dict) else None


def is_closed(schema: Schema) -> bool:
    """True if the schema names all properties that an object may have."""
    return schema.get("additionalProperties") is False and "patternProperties" not in schema


def type_of(value: JSON) -> str:
    """Return the name of the narrowest type of a value: 1.0 is an integer."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if math.isfinite(value) and value == int(value) else "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def is_number(value: JSON) -> TypeGuard[int | float]:
    """True for a finite number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def types_of(schema: Mapping[str, JSON]) -> frozenset[str]:
    """Return the types that `type`, `const` and `enum` permit. Combinators such as `anyOf` are ignored."""
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else list(TYPES)
    types = {str(name) for name in names}
    types |= {"integer"} if "number" in types else set()
    listed = listed_values(schema)
    return frozenset(types if listed is None else types & {type_of(value) for value in listed})


def listed_values(schema: Mapping[str, JSON]) -> list[JSON] | None:
    """Return the values of `const` or `enum`; None if the schema has neither."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) else None


def bounds(schema: Schema, least: str, most: str, default: int = 0) -> tuple[int, int | None] | None:
    """Return the values of two keywords that limit a number; None if one of them is malformed."""
    lower, upper = schema.get(least, default), schema.get(most)
    return (lower, upper) if isinstance(lower, int) and isinstance(upper, int | None) else None


def required_names(schema: Schema) -> list[str]:
    """Return the names in `required`, without malformed ones."""
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def same_value(one: JSON, other: JSON) -> bool:
    """True if both values are equal by JSON Schema: 1 equals 1.0, true does not equal 1."""
    if type_of(one) != type_of(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    return one == other


def is_listed(value: JSON, values: Iterable[JSON]) -> bool:
    """True if one of the values equals `value` by JSON Schema."""
    return any(same_value(value, each) for each in values)


def distinct(values: Sequence[JSON]) -> list[JSON]:
    """Return the values, each once."""
    return [value for n, value in enumerate(values) if not is_listed(value, values[:n])]


def depth(value: JSON) -> int:
    """Return the nesting depth of a value, without recursion."""
    found, level = 0, [value]
    while level := [inner for each in level for inner in _inner(each)]:
        found += 1
    return found


def _inner(value: JSON) -> Sequence[JSON]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
