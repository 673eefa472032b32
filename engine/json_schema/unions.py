"""Rewrite `oneOf` into an `anyOf` of schemas that exclude one another. Pure."""

from collections.abc import Callable
from typing import TypeAlias

from engine.json_schema.values import JSON, Schema, is_listed, listed_values, types_of

Follow: TypeAlias = Callable[[JSON], Schema]
"""Returns the schema that a schema's `$ref` refers to."""

MAX_ALTERNATIVES = 64
"""Alternatives of one `oneOf` that are compared with one another."""


def exclusive(options: list[JSON], whole: Schema, follow: Follow) -> list[JSON] | None:
    """Return alternatives that no two values share; None if that cannot be proved.

    `whole` is the schema beside `oneOf`.
    """
    options = [option for option in options if option is not False]
    if len(options) > MAX_ALTERNATIVES:
        return None
    followed = [follow(option) for option in options]
    exact: list[JSON] = []
    for n, option in enumerate(options):
        absences = _absences(followed[n], [*followed[:n], *followed[n + 1 :]], whole, follow)
        if None in absences:
            return None
        exact.append({"allOf": [option, *absences]} if absences else option)
    return exact


def _absences(one: Schema, others: list[Schema], whole: Schema, follow: Follow) -> list[JSON]:
    """Return a schema for each of the others that shares a value with `one`: the objects that the other forbids.

    None replaces a schema if the other has more keywords than `required`.
    """
    shared = [other for other in others if not disjoint(one, other, whole, follow)]
    lists = [_only_required(other, whole, one) for other in shared]
    return [None if names is None else without_one_of(names) for names in lists]


def without_one_of(names: list[str]) -> JSON:
    """Return a schema of the objects that lack at least one of the properties."""
    alternatives: list[JSON] = [{"type": "object", "properties": {name: False}} for name in names]
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def disjoint(one: Schema, other: Schema, whole: Schema, follow: Follow) -> bool:
    """True if no value can match both schemas. False if some value may."""
    types = types_of(one) & types_of(other) & types_of(whole)
    if not types:
        return True
    if (ours := listed_values(one)) is not None and (theirs := listed_values(other)) is not None:
        return not any(is_listed(value, theirs) for value in ours)
    if types <= {"number", "integer"}:
        return _above(one, other) or _above(other, one)
    if types != {"object"}:
        return False
    required = {*_names(one), *_names(other), *_names(whole)}
    return any(_disjoint_property(name, one, other, follow) for name in required)


def _disjoint_property(name: str, one: Schema, other: Schema, follow: Follow) -> bool:
    ours, theirs = _property(one, name), _property(other, name)
    if ours is False or theirs is False:
        return True
    if ours is None or theirs is None:
        return False
    return disjoint(follow(ours), follow(theirs), {}, follow)


def _property(schema: Schema, name: str) -> JSON:
    """Return the schema of a property; None if the property is not constrained by name."""
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return False if schema.get("additionalProperties") is False and not schema.get("patternProperties") else None


def _names(schema: Schema) -> list[str]:
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def _only_required(schema: Schema, whole: Schema, beside: Schema) -> list[str] | None:
    """Return the required names if the schema has no other keyword; None otherwise."""
    objects = {"object"} in (types_of(schema), types_of(whole), types_of(beside))
    alone = not schema.keys() - {"required", "type", "title", "description"}
    names = _names(schema)
    return names if alone and objects and names else None


def _above(one: Schema, other: Schema) -> bool:
    """True if every number of `one` lies above every number of `other`."""
    least, open_least = _number(one, "minimum"), _number(one, "exclusiveMinimum")
    most, open_most = _number(other, "maximum"), _number(other, "exclusiveMaximum")
    if least is not None and most is not None and least > most:
        return True
    if open_least is not None and any(each is not None and open_least >= each for each in (most, open_most)):
        return True
    return least is not None and open_most is not None and least >= open_most


def _number(schema: Schema, key: str) -> int | float | None:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
