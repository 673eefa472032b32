"""Rewrite `uniqueItems` of few values into a list of all permutations. Pure."""

import itertools
from collections.abc import Sequence

from engine.json_schema.keywords import with_all_of, without
from engine.json_schema.values import JSON, TYPES, Schema, is_listed, listed_values, types_of

MAX_UNIQUE = 4
"""Values in a list without repetition: the grammar has every permutation."""
MAX_PAIRED = 16
"""Values in such a list of at most two items."""
_NO_ARRAY: JSON = {"type": [name for name in TYPES if name not in ("array", "integer")]}


def without_unique_items(schema: Schema) -> Schema:
    """Rewrite `uniqueItems` of few values into a list of all permutations."""
    items = schema.get("items")
    if schema.get("uniqueItems") is not True or not isinstance(items, dict) or "prefixItems" in schema:
        return schema
    values = _distinct_values(items)
    orders = None if values is None else _orders(values, schema)
    if orders is None:
        return schema
    lists = [_list_of(order, items) for order in orders]
    if types_of(schema) != {"array"}:
        lists.append(_NO_ARRAY)
    return with_all_of(without(schema, "uniqueItems", "items", "minItems", "maxItems"), [{"anyOf": lists}])


def _distinct_values(schema: Schema) -> list[JSON] | None:
    """Return the values that a schema permits, each once; None if it does not list them."""
    values = listed_values(schema)
    if values is None and schema.get("type") in ("boolean", "null"):
        return [True, False] if schema["type"] == "boolean" else [None]
    if values is None:
        return None
    return [value for n, value in enumerate(values) if not is_listed(value, values[:n])]


def _orders(values: list[JSON], schema: Schema) -> list[tuple[JSON, ...]] | None:
    """Return the permutations that the schema's limits permit; None if they are too many, or a limit is invalid."""
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if not isinstance(least, int) or least < 0 or not isinstance(most, int | None):
        return None
    most = min(len(values) if most is None else most, len(values))
    if len(values) > (MAX_PAIRED if most <= 2 else MAX_UNIQUE):
        return None
    return [order for length in range(least, most + 1) for order in itertools.permutations(values, length)]


def _list_of(values: Sequence[JSON], items: Schema) -> JSON:
    exact: list[JSON] = [{**items, "enum": [value]} for value in values]
    return {"prefixItems": exact, "items": False, "minItems": len(values), "maxItems": len(values)}
