"""Write a schema that `json_grammar` leaves to llguidance as a grammar of at least the same JSON. Pure."""

import json
import math
from collections.abc import Mapping

from engine.grammar.json_grammar import json_directive, json_grammar
from engine.grammar.json_patterns import name_pattern
from engine.grammar.lark import pattern, string_literal
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
    schema = {key: value for key, value in schema.items() if key != "x-guidance"}
    if "$ref" not in json.dumps({key: value for key, value in schema.items() if key != "$defs"}):
        schema.pop("$defs", None)
    written = json_grammar(schema)
    if json_directive(schema) not in written:
        return written
    values = listed_values(schema)
    if values is not None and all(map(_has_one_spelling, values)):
        return f"start: {' | '.join(string_literal(json.dumps(each, ensure_ascii=False)) for each in values)}"
    types = types_of(schema)
    names = [name for name in _ALL if name in types]
    names += ["integer"] * ("integer" in types and "number" not in types)
    if len(names) != 1:
        return json_grammar({"type": [*names]})
    return _of_type(names[0], schema)


def _of_type(name: str, schema: Schema) -> str:
    if name in _SIMPLE:
        return f"start: {_SIMPLE[name]}"
    if name == "integer":
        return f"start: {pattern(_integers(schema))}"
    text = schema.get("pattern")
    if name == "string" and isinstance(text, str) and (body := name_pattern(text, is_name=False)) is not None:
        quoted = f'"{body}"'
        return f"start: {pattern(quoted)}"
    kept = {"type", "$defs", *_KEYWORDS.get(name, ())}
    fewer = {**{key: value for key, value in schema.items() if key in kept}, "type": name}
    other = schema.keys() - kept - {"title", "description"}
    if other & {*_CHANGED_BY.get(name, ())} or other & {"allOf", "anyOf", "oneOf", "$ref"} or fewer == schema:
        fewer = {"type": name}
    return json_grammar(fewer)


def _integers(schema: Schema) -> str:
    """Return the regex of the integers of a range; of the positive ones, or of all, if the range is large."""
    bounds = [schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")]
    least = [math.ceil(each) for each in bounds[:2] if isinstance(each, int | float)]
    most = [math.floor(each) for each in bounds[2:] if isinstance(each, int | float)]
    if least and most and max(least) <= min(most) <= max(least) + MAX_LISTED:
        return "|".join("-?0" if n == 0 else str(n) for n in range(max(least), min(most) + 1))
    return f"{'' if least and max(least) > 0 else '-?'}(?:0|[1-9][0-9]*)"


def _has_one_spelling(value: JSON) -> bool:
    """True if llguidance writes a value as `json.dumps` does, and not in several ways."""
    if isinstance(value, list):
        return all(map(_has_one_spelling, value))
    return type_of(value) in ("null", "boolean", "string")
