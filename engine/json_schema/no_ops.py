"""Remove keywords that forbid nothing, which schema generators often write. Pure."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from engine.json_schema.property_names import name_rule
from engine.json_schema.values import ANNOTATIONS, JSON, Schema, types_of, without

Condition: TypeAlias = Callable[[Schema], bool]

NO_OP_VALUES: Mapping[str, tuple[JSON, ...]] = {
    "uniqueItems": (False,),
    "additionalItems": (True, {}),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "propertyNames": (True, {}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "not": (False,),
    "minProperties": (0,),
    "$recursiveAnchor": (False,),
}
"""Values with which a keyword forbids nothing."""

_DEPENDENCIES = ("dependencies", "dependentRequired", "dependentSchemas")


def without_no_ops(schema: Schema) -> Schema:
    """Return the schema without the keywords that forbid nothing."""
    rest = {key: value for key, value in schema.items() if not _is_no_op(key, value)}
    for condition, keys in _NO_OP_KEYS:
        if condition(rest):
            rest = without(rest, *keys)
    return rest


def _is_no_op(key: str, value: JSON) -> bool:
    if isinstance(value, dict):
        value = _significant(key, value)
    return any(type(value) is type(each) and value == each for each in NO_OP_VALUES.get(key, ()))


def _significant(key: str, value: Schema) -> Schema:
    """Return the entries of a keyword's value that may forbid something."""
    if key == "propertyNames":
        return name_rule(value)
    if key in _DEPENDENCIES:
        return {name: each for name, each in value.items() if each not in ([], {}) and each is not True}
    return without(value, *ANNOTATIONS)


def _has_one_item(schema: Schema) -> bool:
    most = schema.get("maxItems")
    return isinstance(most, int) and most <= 1


_NO_OP_KEYS: tuple[tuple[Condition, tuple[str, ...]], ...] = (
    (lambda schema: not {"then", "else"} & schema.keys(), ("if",)),
    (lambda schema: "if" not in schema, ("then", "else")),
    (lambda schema: "contains" not in schema, ("minContains", "maxContains")),
    (lambda schema: not isinstance(schema.get("items"), list), ("additionalItems",)),
    (_has_one_item, ("uniqueItems",)),
    (lambda schema: "array" not in types_of(schema), ("uniqueItems", "contains", "unevaluatedItems")),
)
"""Conditions, in their order, and the keywords that forbid nothing if a schema meets one."""
