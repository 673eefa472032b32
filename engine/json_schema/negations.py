"""Rewrite `not` into keywords that llguidance enforces. Pure."""

from collections.abc import Callable
from typing import TypeAlias

from engine.json_schema.keywords import ANNOTATIONS, with_all_of, without
from engine.json_schema.unions import without_one_of
from engine.json_schema.values import TYPES, Schema, is_listed, listed_values, type_of, types_of

Subtract: TypeAlias = Callable[[Schema, Schema], Schema | None]
"""Returns the first schema without the values of the second; None if no keyword says that."""


def without_not(schema: Schema) -> Schema:
    """Rewrite `not` of a type, of listed values, or of properties that are required together."""
    negated = schema.get("not")
    rest = without(schema, "not")
    if isinstance(negated, dict):
        negated = without(negated, *ANNOTATIONS)
    if negated is True or negated == {}:
        return with_all_of(rest, [False])
    if not isinstance(negated, dict):
        return schema
    subtract = next((each for keys, each in _SUBTRACTIONS if negated.keys() <= keys), None)
    exact = subtract(rest, negated) if subtract else None
    return schema if exact is None else exact


def _without_types(schema: Schema, negated: Schema) -> Schema | None:
    types = types_of(schema)
    left = types - types_of(negated)
    if not types or ("number" in left and "integer" not in left):
        return None  # a fraction has no type of its own
    covered = {"integer"} if "number" in left else set()
    return {**schema, "type": [name for name in TYPES if name in left - covered]}


def _without_values(schema: Schema, negated: Schema) -> Schema | None:
    values, listed = listed_values(negated), listed_values(schema)
    if values is None:
        return None
    if listed is not None:
        left = [value for value in listed if not is_listed(value, values)]
        return {**without(schema, "const", "enum"), "enum": left}
    possible = types_of(schema) | {"integer", "number"}
    return None if possible & {type_of(value) for value in values} else schema


def _without_all_properties(schema: Schema, negated: Schema) -> Schema | None:
    names = negated.get("required")
    objects = types_of(schema) == {"object"} and negated.get("type", "object") == "object"
    if not objects or not isinstance(names, list) or not names:
        return None
    return with_all_of(schema, [without_one_of([str(name) for name in names])])


_SUBTRACTIONS: tuple[tuple[frozenset[str], Subtract], ...] = (
    (frozenset({"type"}), _without_types),
    (frozenset({"const", "enum"}), _without_values),
    (frozenset({"required", "type"}), _without_all_properties),
)
"""Keywords of a negated schema, and the function that subtracts it."""
