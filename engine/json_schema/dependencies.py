"""Rewrite keywords for properties that depend on others into alternatives, which llguidance enforces. Pure."""

from engine.json_schema.keywords import with_all_of, without
from engine.json_schema.values import JSON, Schema

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
