"""Rewrite the keywords of a schema into equivalent ones that llguidance enforces. Pure.

Keywords that forbid nothing are removed. Keywords of older drafts become those of 2020-12.
"""

from collections.abc import Sequence
from itertools import chain, combinations, islice
from typing import TypeAlias

from engine.json_schema.arrays import without_contains, without_unique_items
from engine.json_schema.conditionals import without_chosen_if, without_dependencies, without_dependents, without_if
from engine.json_schema.formats import with_exact_format
from engine.json_schema.negations import without_not
from engine.json_schema.no_ops import without_no_ops
from engine.json_schema.property_names import without_property_names
from engine.json_schema.references import Document
from engine.json_schema.texts import without_lookaheads
from engine.json_schema.unevaluated import without_unevaluated
from engine.json_schema.unions import exclusive
from engine.json_schema.values import (
    ENFORCED,
    JSON,
    Schema,
    any_of,
    bounds,
    is_closed,
    listed_values,
    type_of,
    types_of,
    with_all_of,
    without,
)

Limits: TypeAlias = tuple[int, int | None]
"""Least and greatest number of properties."""
Names: TypeAlias = tuple[list[JSON], list[str]]
"""Names of the required properties, and of the optional ones."""


def rewritten(schema: Schema, document: Document) -> Schema:
    """Return an equivalent schema. Keywords that it can't rewrite stay."""
    for rewrite in _REWRITES:
        schema = rewrite(schema)
    for rewrite_with in _REWRITES_WITH_REFERENCES if document.has_alternatives else ():
        schema = rewrite_with(schema, document)
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


def _without_one_of(schema: Schema, document: Document) -> Schema:
    options = schema.get("oneOf")
    if not isinstance(options, list):
        return schema
    whole = without(schema, "oneOf")
    found = exclusive(options, whole, document)
    if found is None:
        return schema
    return {**whole, "anyOf": found} if "anyOf" not in whole else with_all_of(whole, [{"anyOf": found}])


def _without_lookaheads(schema: Schema) -> Schema:
    """Rewrite the look-aheads at the beginning of `pattern` into further patterns."""
    pattern = schema.get("pattern")
    found = without_lookaheads(pattern) if isinstance(pattern, str) else None
    if found is None:
        return schema
    patterns: list[JSON] = [{"pattern": each} for each in found[1]]
    return with_all_of({**schema, "pattern": found[0]}, patterns)


MAX_SUBSETS = 64
"""Sets of properties into which an object with a number of properties is split."""


_PROPERTY_COUNTS = ("minProperties", "maxProperties")


def _without_property_counts(schema: Schema, document: Document) -> Schema:
    """Rewrite `minProperties` and `maxProperties` beside optional properties into an `anyOf` of required ones."""
    limits, names = bounds(schema, *_PROPERTY_COUNTS), _named_properties(schema)
    if limits is None or names is None or not schema.keys() & {*_PROPERTY_COUNTS}:
        return schema
    rest, optional = without(schema, *_PROPERTY_COUNTS), names[1]
    if _permits_all_counts(schema, limits, names):
        return rest
    alternatives = _counted_objects(schema, limits, names)
    if not optional or alternatives is None or len(alternatives) > MAX_SUBSETS:
        return schema
    return with_all_of(rest, [any_of(list(alternatives))])


def _permits_all_counts(schema: Schema, limits: Limits, names: Names) -> bool:
    """True if every object with the required properties is within the limits."""
    sizes = _optional_sizes(limits, names)
    return sizes == range(len(names[1]) + 1) and (limits[1] is None or is_closed(schema))


def _counted_objects(schema: Schema, limits: Limits, names: Names) -> list[Schema] | None:
    """Return a schema for each set of optional properties within the limits; None if the limits cannot be enforced."""
    (least, most), (required, optional) = limits, names
    if is_closed(schema):
        sizes = _optional_sizes(limits, names)
        return _alternatives(optional, sizes[:1], more=True) if most is None else _alternatives(optional, sizes)
    if least > max(len(required), 1):
        return None
    limited: Schema = {key: schema[key] for key in _PROPERTY_COUNTS if key in schema}
    return [{**each, **limited} for each in _alternatives(optional, range(len(optional) + 1))]


def _optional_sizes(limits: Limits, names: Names) -> range:
    """Return the numbers of optional properties that an object with the required ones may have."""
    (least, most), (required, optional) = limits, names
    last = len(optional) if most is None else min(most - len(required), len(optional))
    return range(max(least - len(required), 0), last + 1)


def _named_properties(schema: Schema) -> Names | None:
    """Return the names of the required properties and of the optional ones."""
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        return None
    return required, [name for name, inner in properties.items() if inner is not False and name not in required]


def _alternatives(optional: Sequence[str], sizes: range, more: bool = False) -> list[Schema]:
    """Return a schema for each choice of that many optional properties; too many are cut after MAX_SUBSETS."""
    sets = chain.from_iterable(combinations(optional, size) for size in sizes)
    return [_of_properties(chosen, optional, more) for chosen in islice(sets, MAX_SUBSETS + 1)]


def _of_properties(names: Sequence[str], optional: Sequence[str], more: bool) -> Schema:
    """Return the objects with some of the optional properties, and with others of them if `more`."""
    absent: Schema = {} if more else {name: False for name in optional if name not in names}
    return {"properties": absent, "required": list(names)}


def _without_repeated_type(schema: Schema, document: Document) -> Schema:
    """Remove `type` if all alternatives of a union beside it have that type."""
    options = schema.get("anyOf")
    if "type" not in schema or not isinstance(options, list) or not options or "allOf" in schema:
        return schema
    if schema.keys() & ENFORCED != {"type", "anyOf"}:
        return schema
    repeated = all(types_of(document.follow(option)) <= types_of({"type": schema["type"]}) for option in options)
    return without(schema, "type") if repeated else schema


_REWRITES = (
    without_no_ops,
    _with_prefix_items,
    without_dependencies,
    without_dependents,
    without_property_names,
    without_unique_items,
    _with_plain_integers,
    _without_lookaheads,
)
"""Functions that rewrite a schema, in their order."""

_REWRITES_WITH_REFERENCES = (
    without_unevaluated,
    without_contains,
    without_chosen_if,
    without_if,
    without_not,
    _without_one_of,
    _without_property_counts,
    _without_repeated_type,
)
"""Functions that rewrite a schema and may follow its references, in their order."""
