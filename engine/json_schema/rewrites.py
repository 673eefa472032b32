"""Rewrite the keywords of a schema into equivalent ones that llguidance enforces. Pure.

Keywords that forbid nothing are removed. Keywords of older drafts become those of 2020-12.
"""

from engine.json_schema.dependencies import without_dependencies, without_dependents
from engine.json_schema.formats import with_exact_format
from engine.json_schema.keywords import with_all_of, without
from engine.json_schema.negations import without_not
from engine.json_schema.no_ops import without_no_ops
from engine.json_schema.property_names import without_property_names
from engine.json_schema.unions import Follow, exclusive
from engine.json_schema.unique_items import without_unique_items
from engine.json_schema.values import Schema, listed_values, type_of, types_of


def rewritten(schema: Schema, follow: Follow) -> Schema:
    """Return an equivalent schema. Keywords that it can't rewrite stay."""
    for rewrite in _REWRITES:
        schema = rewrite(schema)
    schema = _without_one_of(schema, follow)
    return with_exact_format(schema) if "string" in types_of(schema) else without(schema, "format")


def _with_prefix_items(schema: Schema) -> Schema:
    """Rewrite `items` with a list, as in drafts before 2020-12, into `prefixItems`."""
    items = schema.get("items")
    if not isinstance(items, list) or "prefixItems" in schema:
        return schema
    rest = without(schema, "items", "additionalItems")
    return {**rest, "prefixItems": items, "items": schema.get("additionalItems", True)}


def _with_plain_integers(schema: Schema) -> Schema:
    """Write integral floats of `const` and `enum` as integers: `1` and `1.0` are equal."""
    listed = listed_values(schema)
    if listed is None:
        return schema
    plain = [int(value) if isinstance(value, float) and type_of(value) == "integer" else value for value in listed]
    rest = without(schema, "const")
    return {**rest, "const": plain[0]} if "const" in schema else {**rest, "enum": plain}


def _without_one_of(schema: Schema, follow: Follow) -> Schema:
    options = schema.get("oneOf")
    if not isinstance(options, list):
        return schema
    whole = without(schema, "oneOf")
    found = exclusive(options, whole, follow)
    if found is None:
        return schema
    return {**whole, "anyOf": found} if "anyOf" not in whole else with_all_of(whole, [{"anyOf": found}])


_REWRITES = (
    without_no_ops,
    _with_prefix_items,
    without_dependencies,
    without_dependents,
    without_not,
    without_property_names,
    without_unique_items,
    _with_plain_integers,
)
"""Functions that rewrite a schema, in their order."""
