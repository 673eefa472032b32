"""Rewrite `if` and keywords for properties that depend on others into alternatives, which llguidance enforces. Pure."""

from itertools import chain
from typing import TypeGuard

from msgspec import Struct

from engine.json_schema.negations import complement
from engine.json_schema.references import Document
from engine.json_schema.values import (
    ENFORCED,
    JSON,
    Schema,
    any_of,
    distinct,
    is_listed,
    listed_values,
    property_of,
    required_names,
    type_of,
    types_of,
    with_all_of,
    without,
)

MAX_DEPENDENTS = 5
"""Properties of one object that others depend on: each doubles the number of alternatives."""


def without_dependencies(schema: Schema) -> Schema:
    """Rewrite `dependencies`, as in drafts before 2019-09, into the keywords that replaced it."""
    found = schema.get("dependencies")
    if not isinstance(found, dict):
        return schema
    lists: Schema = {name: each for name, each in found.items() if isinstance(each, list)}
    texts: Schema = {name: [each] for name, each in found.items() if isinstance(each, str)}
    schemas: Schema = {name: each for name, each in found.items() if isinstance(each, dict | bool)}
    schema = _with_entries(without(schema, "dependencies"), "dependentRequired", {**lists, **texts})
    return _with_entries(schema, "dependentSchemas", schemas)


def _with_entries(schema: Schema, key: str, added: Schema) -> Schema:
    """Return the schema with more entries in an object; the entries that it has win."""
    entries = schema.get(key, {})
    return {**schema, key: {**added, **entries}} if added and isinstance(entries, dict) else schema


def without_dependents(schema: Schema) -> Schema:
    """Rewrite `dependentRequired` and `dependentSchemas` into an `anyOf` for each property."""
    required, schemas = schema.get("dependentRequired", {}), schema.get("dependentSchemas", {})
    if not isinstance(required, dict) or not isinstance(schemas, dict):
        return schema
    if not 0 < len(required) + len(schemas) <= MAX_DEPENDENTS:
        return schema
    lists = {name: names for name, names in required.items() if isinstance(names, list)}
    if len(lists) < len(required):
        return schema
    added = [_if_present(name, {"required": _all_of(name, names)}) for name, names in lists.items()]
    added += [_if_present(name, {"required": [name], "allOf": [inner]}) for name, inner in schemas.items()]
    return with_all_of(without(schema, "dependentRequired", "dependentSchemas"), added)


def _if_present(name: str, then: Schema) -> JSON:
    """Return a schema of the objects that lack a property or match a schema."""
    return {"anyOf": [{"properties": {name: False}}, {"properties": {name: True}, **then}]}


def _all_of(name: str, names: list[JSON]) -> list[JSON]:
    return [name, *(each for each in names if each != name)]


def without_if(schema: Schema, document: Document) -> Schema:
    """Rewrite `if`, `then` and `else` into an `anyOf`; unchanged if the values of `else` cannot be written."""
    if "if" not in schema:
        return schema
    rest = without(schema, "if", "then", "else")
    cases = _cases([schema], rest, document) or _branches(schema, rest, document)
    return schema if cases is None else with_all_of(rest, [any_of(cases)])


def without_chosen_if(schema: Schema, document: Document) -> Schema:
    """Rewrite the conditionals of an `allOf` that depend on one property into an `anyOf` with a case for each value."""
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    conditionals = [part for part in parts if _is_conditional(part)]
    if len(conditionals) < 2:
        return schema
    others = [part for part in parts if part not in conditionals]
    rest = {**without(schema, "allOf"), **({"allOf": others} if others else {})}
    cases = _cases(conditionals, rest, document)
    return schema if cases is None else with_all_of(rest, [any_of(cases)])


def _is_conditional(part: JSON) -> TypeGuard[Schema]:
    return isinstance(part, dict) and "if" in part and part.keys() <= {"if", "then", "else"}


MAX_CASES = 64
"""Values of the property on which conditionals depend."""


class _Condition(Struct, frozen=True):
    """A condition that constrains one property: the values that it permits, and whether the property is required."""

    name: str
    values: list[JSON]
    is_required: bool


def _branches(schema: Schema, rest: Schema, document: Document) -> list[JSON] | None:
    """Return the values that meet the condition, and those that don't; None if the latter cannot be written."""
    condition, then, otherwise = schema["if"], schema.get("then", True), schema.get("else", True)
    negated = complement(condition, rest, document)
    if negated is None:
        return None
    return [{"allOf": [condition, then]}, {"allOf": [any_of(negated), otherwise]}]


def _cases(conditionals: list[Schema], rest: Schema, document: Document) -> list[JSON] | None:
    """Return the objects with each value of the property that all conditions list values of; None if there is none."""
    conditions = _conditions_on_one_property(conditionals)
    if conditions is None or types_of(rest) != {"object"}:
        return None
    name = conditions[0].name
    values = _listed(conditions)
    others = complement({"enum": values}, document.follow(property_of(rest, name)), document)
    if others is None or len(values) > MAX_CASES:
        return None
    cases: list[JSON] = []
    for value in values:
        consequences = _consequences(conditionals, [is_listed(value, each.values) for each in conditions])
        cases.append({"properties": {name: {"const": value}}, "required": [name], "allOf": consequences})
    if others:
        consequences = _consequences(conditionals, [False] * len(conditions))
        cases.append({"properties": {name: any_of(others)}, "required": [name], "allOf": consequences})
    if name not in required_names(rest):
        consequences = _consequences(conditionals, [not each.is_required for each in conditions])
        cases.append({"properties": {name: False}, "required": [], "allOf": consequences})
    return cases


def _listed(conditions: list[_Condition]) -> list[JSON]:
    """Return the values of all conditions, each once."""
    return distinct(list(chain.from_iterable(each.values for each in conditions)))


def _consequences(conditionals: list[Schema], are_met: list[bool]) -> list[JSON]:
    """Return the `then` of each conditional that is met, and the `else` of each other one."""
    branches = ["then" if is_met else "else" for is_met in are_met]
    schemas = [each.get(branch, True) for each, branch in zip(conditionals, branches, strict=True)]
    return [each for each in schemas if each is not True]


def _conditions_on_one_property(conditionals: list[Schema]) -> list[_Condition] | None:
    """Return the conditions; None if they constrain several properties, or one by more than its values."""
    conditions = [each for each in map(_condition, (each["if"] for each in conditionals)) if each is not None]
    is_one = len(conditions) == len(conditionals) and len({each.name for each in conditions}) == 1
    return conditions if is_one else None


def _condition(condition: JSON) -> _Condition | None:
    found = _only_property(condition)
    if found is None:
        return None
    name, inner, required = found
    values = _only_values(inner)
    return None if values is None or required not in ([], [name]) else _Condition(name, values, bool(required))


def _only_property(schema: JSON) -> tuple[str, JSON, JSON] | None:
    """Return name and schema of the only property that a schema constrains, and `required`; None for other schemas."""
    if not isinstance(schema, dict) or schema.keys() & ENFORCED - {"properties", "required", "type"}:
        return None
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(properties) != 1 or schema.get("type", "object") != "object":
        return None
    ((name, inner),) = properties.items()
    return name, inner, schema.get("required", [])


def _only_values(schema: JSON) -> list[JSON] | None:
    """Return the values that the schema lists, without those of other types; None if it has further keywords."""
    if not isinstance(schema, dict) or schema.keys() & ENFORCED - {"const", "enum", "type"}:
        return None
    values, types = listed_values(schema), types_of(schema)
    if values is None or {"const", "enum"} <= schema.keys():
        return None
    return [value for value in values if type_of(value) in types]
