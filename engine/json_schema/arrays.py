"""Rewrite `uniqueItems` of few values, and `contains`, into lists of all possible orders. Pure."""

import itertools
import math
from collections.abc import Sequence

from engine.json_schema.negations import complement
from engine.json_schema.references import Document
from engine.json_schema.values import (
    JSON,
    TYPES,
    Schema,
    any_of,
    bounds,
    distinct,
    listed_values,
    types_of,
    with_all_of,
    without,
)

MAX_UNIQUE = 4
"""Values in a list without repetition: the grammar has every permutation."""
MAX_PAIRED = 16
"""Values in such a list of at most two items."""
MAX_POSITIONS = 16
"""Items of a list among which `contains` is looked for."""
MAX_PLACEMENTS = 64
"""Ways to place the contained items among these."""
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
    return distinct(values)


def _orders(values: list[JSON], schema: Schema) -> list[tuple[JSON, ...]] | None:
    """Return the permutations that the schema's limits permit; None if they are too many, or a limit is invalid."""
    limits = bounds(schema, "minItems", "maxItems")
    if limits is None or limits[0] < 0:
        return None
    least, most = limits
    most = min(len(values) if most is None else most, len(values))
    if len(values) > (MAX_PAIRED if most <= 2 else MAX_UNIQUE):
        return None
    return [order for length in range(least, most + 1) for order in itertools.permutations(values, length)]


def _list_of(values: Sequence[JSON], items: Schema) -> JSON:
    exact: list[JSON] = [{**items, "enum": [value]} for value in values]
    return {"prefixItems": exact, "items": False, "minItems": len(values), "maxItems": len(values)}


def without_contains(schema: Schema, document: Document) -> Schema:
    """Rewrite `contains` into an `anyOf` of the positions of the contained items.

    These must be among the first MAX_POSITIONS items, or fewer if there are many ways to place them.
    """
    limits = bounds(schema, "minContains", "maxContains", default=1)
    if "contains" not in schema or limits is None or limits[0] < 0:
        return schema
    (least, most), contained = limits, schema["contains"]
    anything: list[JSON] = [True]
    negated = anything if most is None else complement(contained, {}, document)
    if negated is None:
        return schema
    rest = without(schema, "contains", "minContains", "maxContains")
    if (least, most) == (0, None):
        return rest
    placements = _placements(least, least if most is None else most, schema.get("maxItems"))
    return with_all_of(rest, [any_of([_with_contained(each, contained, any_of(negated)) for each in placements])])


def _placements(least: int, most: int, max_items: JSON) -> list[tuple[int, ...]]:
    """Return the positions of `least` to `most` contained items in a list of at most `max_items`."""
    n_positions = min(max_items, MAX_POSITIONS) if isinstance(max_items, int) else MAX_POSITIONS
    sizes = range(least, min(most, MAX_POSITIONS) + 1)
    while n_positions > least and sum(math.comb(n_positions, size) for size in sizes) > MAX_PLACEMENTS:
        n_positions -= 1
    placed = itertools.chain.from_iterable(itertools.combinations(range(n_positions), size) for size in sizes)
    return list(itertools.islice(placed, MAX_PLACEMENTS))


def _with_contained(chosen: Sequence[int], contained: JSON, others: JSON) -> JSON:
    n_first = chosen[-1] + 1 if chosen else 0
    prefix: list[JSON] = [contained if n in chosen else others for n in range(n_first)]
    return {"prefixItems": prefix, "items": others, "minItems": n_first}
