"""Write the values that a schema forbids as alternatives, which llguidance enforces: for `not`, `if` and `oneOf`. Pure.

JSON schema has no keyword for some of them, such as the texts that a pattern does not match. `complement` returns None
for these, and never more or fewer values than the schema forbids.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, combinations

from engine.json_schema.formats import with_exact_format
from engine.json_schema.limits import OPPOSITES, gaps, opposites
from engine.json_schema.references import Document
from engine.json_schema.texts import other_texts
from engine.json_schema.values import (
    ENFORCED,
    JSON,
    TYPES,
    TYPES_OF_KEYWORDS,
    Schema,
    any_of,
    is_closed,
    is_listed,
    is_number,
    listed_values,
    property_of,
    required_names,
    type_of,
    types_of,
    with_all_of,
    without,
)

MAX_NEGATED_DEPTH = 8
"""Maximum nesting of negated schemas."""
MAX_NEGATED = 64
"""Maximum number of alternatives of one negated schema."""


def without_not(schema: Schema, document: Document) -> Schema:
    """Rewrite `not` into alternatives; unchanged if they cannot be written."""
    if "not" not in schema:
        return schema
    rest = without(schema, "not")
    found = complement(schema["not"], rest, document)
    if found is None:
        return schema
    match found:
        case [{"enum": list(left), **others}] if not others and listed_values(rest) is not None:
            return {**without(rest, "const", "enum"), "enum": left}
        case [{"type": list(types), **others}] if not others:
            return {**rest, "type": types}
    return rest if True in found else with_all_of(rest, [any_of(found)])


def complement(schema: JSON, whole: Schema, document: Document, depth: int = 0) -> list[JSON] | None:
    """Return alternatives for the values of `whole` that a schema forbids; None if they cannot be written."""
    if isinstance(schema, bool):
        return [] if schema else [True]
    if not isinstance(schema, dict) or depth > MAX_NEGATED_DEPTH or not document.take_step():
        return None
    keys = filter(ENFORCED.__contains__, schema)
    found = _all(_without_keyword(key, schema, whole, document, depth) for key in keys)
    return found if found is not None and len(found) <= MAX_NEGATED else None


def _without_keyword(key: str, schema: Schema, whole: Schema, document: Document, depth: int) -> list[JSON] | None:
    """Return alternatives for the values of `whole` that one keyword forbids; None if they cannot be written."""
    types = TYPES_OF_KEYWORDS.get(key, frozenset(TYPES)) & types_of(whole)
    if not types:
        return []
    negate = _NEGATIONS.get(key)
    return negate(_Negated(schema, whole, types, document, depth)) if negate else None


class _Negated:
    """A schema one of whose keywords is negated."""

    def __init__(self, schema: Schema, whole: Schema, types: frozenset[str], document: Document, depth: int):
        self.schema = schema
        self.whole = whole
        self.types = types
        self.document = document
        self.depth = depth

    def inner(self, schema: JSON, whole: Schema) -> list[JSON] | None:
        return complement(schema, whole, self.document, self.depth + 1)


def _all(parts: Iterable[list[JSON] | None]) -> list[JSON] | None:
    """Return the alternatives of all parts together; None if one is None."""
    found: list[JSON] = []
    for part in parts:
        if part is None:
            return None
        found += part
    return found


def _not_type(at: _Negated) -> list[JSON] | None:
    left = types_of(at.whole) - types_of({"type": at.schema["type"]})
    if "number" in left and "integer" not in left:
        return None  # a fraction has no type of its own
    covered = {"integer"} if "number" in left else set()
    names: list[JSON] = [name for name in TYPES if name in left - covered]
    return [{"type": names}] if names else []


def _not_listed(at: _Negated) -> list[JSON] | None:
    values = listed_values(at.schema)
    if values is None or {"const", "enum"} <= at.schema.keys():
        return None
    if (listed := listed_values(at.whole)) is not None:
        left = [each for each in listed if not is_listed(each, values)]
        return [{"enum": left}] if left else []
    return _unlisted(at.types, values)


def _unlisted(types: frozenset[str], values: list[JSON]) -> list[JSON] | None:
    """Return alternatives for the values of some types that are not listed."""
    listed_types = {type_of(value) for value in values}
    listed_types |= {"number"} if "integer" in listed_types else set()
    others: list[JSON] = [type_ for type_ in TYPES if type_ in types - listed_types]
    partly_listed = types & listed_types - ({"integer"} if "number" in types else set())
    of_types = (_unlisted_of_type(type_, values) for type_ in TYPES if type_ in partly_listed)
    return _all(chain([[{"type": others}] if others else []], of_types))


def _unlisted_of_type(type_: str, values: list[JSON]) -> list[JSON] | None:
    """Return alternatives for the values of a type that are not listed."""
    match type_:
        case "null":
            return []
        case "boolean":
            return [{"const": value} for value in (True, False) if not is_listed(value, values)]
        case "string":
            return _unlisted_texts(values)
        case "number" | "integer":
            return gaps(type_, list(filter(is_number, values)))
    return None


def _unlisted_texts(values: list[JSON]) -> list[JSON] | None:
    pattern = other_texts([value for value in values if isinstance(value, str)])
    return None if pattern is None else [{"type": "string", "pattern": pattern}]


def _not_required(at: _Negated) -> list[JSON] | None:
    names = at.schema["required"]
    if not isinstance(names, list):
        return None
    possible = [name for name in map(str, names) if name not in required_names(at.whole)]
    return [{"type": "object", "properties": {name: False}} for name in possible]


def _not_properties(at: _Negated) -> list[JSON] | None:
    properties = at.schema["properties"]
    if not isinstance(properties, dict):
        return None
    found: list[JSON] = []
    for name, inner in properties.items():
        negated = at.inner(inner, at.document.follow(property_of(at.whole, name)))
        if negated is None:
            return None
        if negated:
            found.append({"type": "object", "properties": {name: any_of(negated)}, "required": [name]})
    return found


def _not_additional(at: _Negated) -> list[JSON] | None:
    """Return alternatives if `whole` names all of its properties."""
    if at.schema["additionalProperties"] in (True, {}):
        return []
    ours, theirs = at.schema.get("properties", {}), at.whole.get("properties", {})
    if not is_closed(at.schema) or not is_closed(at.whole):
        return None
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return None
    return [{"type": "object", "required": [name]} for name in theirs if name not in ours]


def _not_dependent(at: _Negated) -> list[JSON] | None:
    dependents = at.schema["dependentRequired"]
    if not isinstance(dependents, dict):
        return None
    return [
        {"type": "object", "required": [name], "properties": {str(other): False}}
        for name, others in dependents.items()
        if isinstance(others, list)
        for other in others
    ]


def _not_contains(at: _Negated) -> list[JSON] | None:
    if {"minContains", "maxContains"} & at.schema.keys():
        return None
    negated = at.inner(at.schema["contains"], {})
    return None if negated is None else [{"type": "array", "items": any_of(negated)}]


def _not_any_of(at: _Negated) -> list[JSON] | None:
    options = at.schema["anyOf"]
    return _not_any(at, options) if isinstance(options, list) else None


def _not_any(at: _Negated, options: list[JSON]) -> list[JSON] | None:
    """Return alternatives for the values that all options forbid."""
    parts = [at.inner(option, at.whole) for option in options]
    if None in parts:
        return None
    both = [any_of(part) for part in parts if part is not None]
    return [] if False in both else [{"allOf": both}] if both else [True]


def _not_one_of(at: _Negated) -> list[JSON] | None:
    options = at.schema["oneOf"]
    if not isinstance(options, list):
        return None
    neither = _not_any(at, options)
    pairs: list[JSON] = [{"allOf": list(pair)} for pair in combinations(options, 2)]
    return None if neither is None else [*neither, *pairs]


def _not_all_of(at: _Negated) -> list[JSON] | None:
    options = at.schema["allOf"]
    return _all([at.inner(option, at.whole) for option in options]) if isinstance(options, list) else None


def _not_reference(at: _Negated) -> list[JSON] | None:
    target = at.document.follow({"$ref": at.schema["$ref"]})
    return at.inner(target, at.whole) if target else None


def _nothing(at: _Negated) -> list[JSON] | None:
    return []


def _not_limit(key: str) -> Callable[[_Negated], list[JSON] | None]:
    return lambda at: opposites(key, at.schema[key])


_NEGATIONS: Mapping[str, Callable[[_Negated], list[JSON] | None]] = {
    "type": _not_type,
    "const": _not_listed,
    "enum": _not_listed,
    "required": _not_required,
    "properties": _not_properties,
    "additionalProperties": _not_additional,
    "dependentRequired": _not_dependent,
    "contains": _not_contains,
    "anyOf": _not_any_of,
    "oneOf": _not_one_of,
    "allOf": _not_all_of,
    "not": lambda at: [at.schema["not"]],
    "$ref": _not_reference,
    "$defs": _nothing,
    "definitions": _nothing,
    "items": lambda at: [] if at.schema["items"] in (True, {}) else None,
    "format": lambda at: [] if "format" not in with_exact_format({"format": at.schema["format"]}) else None,
    **{key: _not_limit(key) for key in OPPOSITES},
}
"""Functions that return alternatives for the values that a keyword forbids. Other keywords cannot be negated."""
