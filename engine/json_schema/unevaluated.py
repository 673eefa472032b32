"""Rewrite `unevaluatedProperties` and `unevaluatedItems` into keywords beside all properties and items. Pure."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from engine.json_schema.references import Document
from engine.json_schema.unions import exclusive
from engine.json_schema.values import JSON, Schema, with_all_of, without

_BRANCHES = ("anyOf", "oneOf", "if", "then", "else", "dependentSchemas", "not")
"""Keywords that evaluate properties of some values only."""
MAX_FOLLOWED = 16
"""Maximum nesting of schemas that apply to one value."""


class _Evaluated(Struct, frozen=True):
    """Properties and items that a schema evaluates."""

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    all_properties: bool = False
    n_items: int = 0
    all_items: bool = False

    def __add__(self, other: "_Evaluated") -> "_Evaluated":
        return _Evaluated(
            self.names + other.names,
            self.patterns + other.patterns,
            self.all_properties or other.all_properties,
            max(self.n_items, other.n_items),
            self.all_items or other.all_items,
        )


def without_unevaluated(schema: Schema, document: Document) -> Schema:
    """Rewrite `unevaluatedProperties` and `unevaluatedItems`; unchanged if a branch inside a part evaluates more."""
    for key in ("unevaluatedItems", "unevaluatedProperties"):
        if key in schema:
            schema = _without(key, schema, document) or schema
    return schema


def _without(key: str, schema: Schema, document: Document) -> Schema | None:
    value, rest = schema[key], without(schema, key)
    branches = [name for name in _BRANCHES if name in rest]
    base = _evaluated(without(rest, *branches), document)
    if base is None:
        return None
    if not branches:
        return _with_closure(key, value, rest, base)
    if branches in (["anyOf"], ["oneOf"]):
        return _with_closed_options(key, value, branches[0], rest, base, document)
    if branches[0] == "if" and {*branches} <= {"if", "then", "else"}:
        return _with_closed_branches(key, value, rest, base, document)
    return None


def _with_closure(key: str, value: JSON, rest: Schema, base: _Evaluated) -> Schema:
    if key == "unevaluatedProperties" and not {"$ref", "allOf"} & rest.keys() and not base.all_properties:
        return {**rest, "additionalProperties": value}
    return with_all_of(rest, _closure(key, value, base))


def _with_closed_branches(key: str, value: JSON, rest: Schema, base: _Evaluated, document: Document) -> Schema | None:
    then, otherwise = rest.get("then", True), rest.get("else", True)
    if_true = _closed(key, value, then, base, [rest["if"], then], document)
    if_false = _closed(key, value, otherwise, base, [otherwise], document)
    return None if if_true is None or if_false is None else {**rest, "then": if_true, "else": if_false}


def _with_closed_options(
    key: str, value: JSON, combinator: str, rest: Schema, base: _Evaluated, document: Document
) -> Schema | None:
    options = rest[combinator]
    if not isinstance(options, list):
        return None
    exact = exclusive(options, without(rest, combinator), document) if combinator == "oneOf" else options
    if exact is None or len(exact) != len(options):
        return None
    closed = [
        _closed(key, value, option, base, [original], document) for option, original in zip(exact, options, strict=True)
    ]
    if None in closed:
        return None
    return {**without(rest, combinator), "anyOf": [each for each in closed if each is not None]}


def _closed(key: str, value: JSON, schema: JSON, base: _Evaluated, parts: Sequence[JSON], document: Document) -> JSON:
    """Return a branch in which only properties of `base` and of the parts that apply are evaluated."""
    evaluated = base
    for part in parts:
        more = _evaluated(part, document)
        if more is None:
            return None
        evaluated += more
    return {"allOf": [schema, *_closure(key, value, evaluated)]}


def _closure(key: str, value: JSON, evaluated: _Evaluated) -> list[JSON]:
    if key == "unevaluatedItems":
        return [] if evaluated.all_items else [{"prefixItems": [True] * evaluated.n_items, "items": value}]
    if evaluated.all_properties:
        return []
    named: Schema = {"properties": dict.fromkeys(evaluated.names, True), "additionalProperties": value}
    patterns: Schema = {"patternProperties": dict.fromkeys(evaluated.patterns, True)} if evaluated.patterns else {}
    return [{**named, **patterns}]


def _evaluated(schema: JSON, document: Document, depth: int = 0) -> _Evaluated | None:
    """Return the properties and items that a schema evaluates in every value; None if they depend on the value."""
    if not isinstance(schema, dict):
        return _Evaluated()
    if depth > MAX_FOLLOWED or any(key in schema for key in _BRANCHES) or "contains" in schema:
        return None
    evaluated = _evaluated_by_keywords(schema)
    for part in _parts(schema, document):
        more = _evaluated(part, document, depth + 1)
        if evaluated is None or more is None:
            return None
        evaluated += more
    return evaluated


def _evaluated_by_keywords(schema: Schema) -> _Evaluated | None:
    """Return the properties and items that a schema itself evaluates; None if it is malformed."""
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    prefix = schema.get("prefixItems", [])
    if not isinstance(properties, dict) or not isinstance(patterns, dict) or not isinstance(prefix, list):
        return None
    return _Evaluated(
        tuple(properties),
        tuple(patterns),
        bool({"additionalProperties", "unevaluatedProperties"} & schema.keys()),
        len(prefix),
        bool({"items", "unevaluatedItems"} & schema.keys()),
    )


def _parts(schema: Schema, document: Document) -> Iterator[JSON]:
    """Yield the schemas of `allOf`, and the one that `$ref` refers to."""
    parts = schema.get("allOf")
    yield from parts if isinstance(parts, list) else ()
    if "$ref" in schema:
        yield document.follow({"$ref": schema["$ref"]})
