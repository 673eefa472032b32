"""Write a schema that `json_grammar` leaves to llguidance as a grammar of at least the same JSON. Pure."""

import json
import math
from collections.abc import Mapping

from engine.grammar import json_directive, json_grammar, pattern, string_literal, text_pattern
from engine.json_schema import JSON, Schema, listed_values, type_of, types_of

_SIMPLE = {
    "null": '"null"',
    "boolean": '"true" | "false"',
    "number": pattern(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"),
}
MAX_LISTED = 100
"""Integers of a range that is written out."""
_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
}
"""Keywords that stay, by type."""
_CHANGED_BY: Mapping[str, tuple[str, ...]] = {
    "array": ("prefixItems",),
    "object": ("patternProperties",),
}
"""Keywords that change the meaning of those."""
_ALL = ("null", "boolean", "number", "string", "array", "object")


def widened(schema: JSON) -> str:
    """Return a Lark grammar of at least the schema's JSON."""
    if not isinstance(schema, dict):
        return json_grammar(True)
    schema = _without_unused(schema)
    written = json_grammar(schema)
    if json_directive(schema) not in written:
        return written
    values = listed_values(schema)
    if values is not None and all(map(_has_one_spelling, values)):
        return f"start: {' | '.join(string_literal(json.dumps(each, ensure_ascii=False)) for each in values)}"
    names = _type_names(schema)
    return _of_type(names[0], schema) if len(names) == 1 else json_grammar({"type": [*names]})


def _without_unused(schema: Schema) -> Schema:
    """Return the schema without the hints of llguidance, and without definitions that it does not use."""
    body = {key: value for key, value in schema.items() if key not in ("x-guidance", "$defs")}
    return {**body, "$defs": schema["$defs"]} if "$defs" in schema and "$ref" in json.dumps(body) else body


def _type_names(schema: Schema) -> list[str]:
    """Return the names of the types that the schema allows; `number` includes `integer`."""
    types = types_of(schema)
    names = [name for name in _ALL if name in types]
    return names if "integer" not in types or "number" in types else [*names, "integer"]


def _of_type(name: str, schema: Schema) -> str:
    if name in _SIMPLE:
        return f"start: {_SIMPLE[name]}"
    if name == "integer":
        return f"start: {pattern(_integers(schema))}"
    if name == "string" and (quoted := _quoted_pattern(schema.get("pattern"))):
        return f"start: {pattern(quoted)}"
    kept = {"type", "$defs", *_KEYWORDS.get(name, ())}
    fewer = {**{key: value for key, value in schema.items() if key in kept}, "type": name}
    other = schema.keys() - kept - {"title", "description"}
    if other & {*_CHANGED_BY.get(name, ())} or other & {"allOf", "anyOf", "oneOf", "$ref"} or fewer == schema:
        fewer = {"type": name}
    return json_grammar(fewer)


def _quoted_pattern(text: JSON) -> str:
    """Return the regex of the JSON strings that match a `pattern`; empty if it cannot be written."""
    body = text_pattern(text) if isinstance(text, str) else None
    return "" if body is None else f'"{body}"'


def _integers(schema: Schema) -> str:
    """Return the regex of the integers of a range; of the positive ones, or of all, if the range is large."""
    least = list(map(math.ceil, _numbers(schema, "minimum", "exclusiveMinimum")))
    most = list(map(math.floor, _numbers(schema, "maximum", "exclusiveMaximum")))
    if least and most and max(least) <= min(most) <= max(least) + MAX_LISTED:
        return "|".join("-?0" if n == 0 else str(n) for n in range(max(least), min(most) + 1))
    return f"{'' if least and max(least) > 0 else '-?'}(?:0|[1-9][0-9]*)"


def _numbers(schema: Schema, *keywords: str) -> list[int | float]:
    values = [schema.get(keyword) for keyword in keywords]
    return [each for each in values if isinstance(each, int | float)]


def _has_one_spelling(value: JSON) -> bool:
    """True if llguidance writes a value as `json.dumps` does, and not in several ways."""
    if isinstance(value, list):
        return all(map(_has_one_spelling, value))
    return type_of(value) in ("null", "boolean", "string")
