"""Add and remove keywords of a schema. Pure: each function returns a new schema."""

from engine.json_schema.values import JSON, Schema

ANNOTATIONS = ("title", "description", "examples", "default", "$comment", "$schema", "deprecated")
"""Keywords that forbid nothing, as schema generators write them."""


def without(schema: Schema, *keys: str) -> Schema:
    """Return the schema without some of its keywords."""
    return {key: value for key, value in schema.items() if key not in keys}


def with_all_of(schema: Schema, added: list[JSON]) -> Schema:
    """Return the schema with more entries in `allOf`; unchanged if its `allOf` is not a list."""
    others = schema.get("allOf", [])
    return {**schema, "allOf": [*others, *added]} if isinstance(others, list) else schema
