"""Write a schema as a Lark grammar in which free texts have every escape of RFC 8259. Pure.

llguidance's own schema compiler knows the short escapes only. So this module writes out objects, lists, unions, free
texts and listed numbers; any other schema is a leaf, which llguidance compiles. Property names and texts in constants
have one spelling each; numbers in them have all spellings of their value.

White space is that of Python's `json.dumps`: one space after a colon and a comma, none elsewhere. Chat templates
render earlier calls so, and models know it best. Left to the model, white space would cost a sampled token or two at
each key, where the rest of the key is certain.
"""

import json

from engine.grammar.json_characters import CHARACTER
from engine.grammar.json_numbers import is_plain_number, spellings
from engine.grammar.json_patterns import escaped_pattern, name_pattern
from engine.grammar.lark import Rules, not_equal_to, pattern, string_literal
from engine.json_schema import (
    JSON,
    SUPPORTED,
    TYPES,
    TYPES_OF_KEYWORDS,
    Schema,
    bounds,
    listed_values,
    type_of,
    types_of,
)

COLON, COMMA = ": ", ", "
"""Separators of `json.dumps`, the only white space of an answer."""
_ESCAPES = 'nrbtf\\"'
"""Short escapes of a name. With \\u it would have two spellings, and a second copy of a property could escape its
schema."""
_OPTIONS: Schema = {
    "whitespace_flexible": False,
    "key_separator": COLON,
    "item_separator": COMMA,
    "json_allowed_escapes": _ESCAPES,
    "lenient": False,
    "coerce_one_of": False,
}

_NAME = r'"(?:[^"\\\x00-\x1f\x7f]|\\["\\bfnrt])*"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"

_COLON, _COMMA = string_literal(COLON), string_literal(COMMA)

MAX_LENGTH = 512
"""Characters of a text whose length is bounded. llguidance compiles schemas beyond these limits."""
MAX_ITEMS = 64
"""Items of a list whose length is bounded."""
MAX_PROPERTIES = 128
"""Properties of one object."""
_ALL_TYPES: JSON = [name for name in TYPES if name != "integer"]
"""Types of any value: an integer is a number."""
_KEYWORDS = {key: types for key, types in TYPES_OF_KEYWORDS.items() if key in SUPPORTED}
"""Keywords that apply to some types only -> these types."""


def json_grammar(schema: JSON) -> str:
    """Return the Lark grammar of a schema."""
    return _Writer(schema).text()


def json_directive(schema: JSON) -> str:
    """Return the right side of a rule that llguidance compiles from the schema, with short escapes only."""
    whole: JSON = schema if isinstance(schema, dict) else {"allOf": [schema]}
    assert isinstance(whole, dict)
    return f"%json {json.dumps({**whole, 'x-guidance': _OPTIONS})}"


class _Writer:
    def __init__(self, schema: JSON) -> None:
        self._rules = Rules(None)
        self._definitions: Schema = {}
        if isinstance(schema, dict) and isinstance(definitions := schema.get("$defs"), dict):
            self._definitions = definitions
            schema = {key: value for key, value in schema.items() if key != "$defs"}
        self._schema = schema

    def text(self) -> str:
        whole = self._value(self._schema)
        parts = [f"{name}: {self._value(schema)}" for name, schema in self._definitions.items()]
        text = self._rules.terminal(pattern(f'"{CHARACTER}*"'))
        name = self._rules.terminal(pattern(_NAME))
        number = self._rules.terminal(pattern(_NUMBER))
        items, pairs = (
            self._list("anything", 0, None),
            self._braces(self._many(f"{name} {_COLON} anything", 0, None)),
        )
        anything = f'anything: {text} | {number} | "true" | "false" | "null" | {items} | {pairs}'
        return "\n".join([self._rules.text("whole"), f"whole: {whole}", anything, *parts])

    def _value(self, schema: JSON) -> str:
        """Return an expression for a schema's values."""
        if schema is True or schema == {}:
            return "anything"
        if not isinstance(schema, dict):
            return self._as_leaf(schema)
        schema = _plain(schema)
        return (
            self._of_types(schema)
            or self._combined(schema)
            or self._listed(schema)
            or self._typed(schema)
            or self._as_leaf(schema)
        )

    def _of_types(self, schema: Schema) -> str:
        """Return an expression for the values of several types; empty for other schemas."""
        types = schema.get("type", _ALL_TYPES)
        if not isinstance(types, list) or not {*map(str, types)} <= {*TYPES} or schema.keys() - {"type", *_KEYWORDS}:
            return ""
        return f"({' | '.join(self._value({**schema, 'type': each}) for each in types)})"

    def _combined(self, schema: Schema) -> str:
        """Return an expression for a reference, or for alternatives; empty for other schemas."""
        if len(schema) > 1:
            return ""
        match schema:
            case {"$ref": str(target)}:
                return "whole" if target == "#" else target.removeprefix("#/$defs/")
            case {"anyOf": list(options)}:
                return f"({' | '.join(self._value(option) for option in options if option is not False)})"
            case {"allOf": [part]}:
                return self._value(part)
        return ""

    def _typed(self, schema: Schema) -> str:
        """Return an expression for the values of one type; empty if the schema has more keywords than it can write."""
        keys = schema.keys()
        match schema.get("type"):
            case "string" if keys <= {"type", "minLength", "maxLength", "pattern", "allOf"}:
                return self._text(schema)
            case "array" if keys <= {"type", "items", "minItems", "maxItems"}:
                return self._array(schema)
            case "object" if keys <= {"type", "properties", "required", "additionalProperties"}:
                return self._object(schema)
            case "object" if keys == {"type", "patternProperties", "additionalProperties"}:
                return self._map(schema)
        return ""

    def _listed(self, schema: Schema) -> str:
        """Return an expression for the values of `const` or `enum`; empty if they have no number."""
        values = _permitted_values(schema)
        numbers = [value for value in values if is_plain_number(value)]
        if not numbers:
            return ""
        written = self._rules.terminal(pattern(spellings(numbers)))
        others = [value for value in values if not is_plain_number(value)]
        return f"({written} | {self._as_leaf({'enum': others})})" if others else written

    def _as_leaf(self, schema: JSON) -> str:
        whole = {**schema, "$defs": self._definitions} if isinstance(schema, dict) and self._definitions else schema
        return self._rules.rule(json_directive(whole))

    def _text(self, schema: Schema) -> str:
        limits, patterns = _limits(schema, "minLength", "maxLength", MAX_LENGTH), _patterns(schema)
        if limits is None or patterns is None:
            return self._as_leaf(schema)
        least, most = limits
        times = "*" if (least, most) == (0, None) else f"{{{least},{'' if most is None else most}}}"
        bodies = patterns if patterns and times == "*" else [f"{CHARACTER}{times}", *patterns]
        return self._rules.terminal(" & ".join(pattern(f'"{body}"') for body in bodies))

    def _array(self, schema: Schema) -> str:
        limits, items = _limits(schema, "minItems", "maxItems", MAX_ITEMS), schema.get("items", True)
        if limits is None or items is False or (limits[1] is not None and limits[1] < 1):
            return self._as_leaf(schema)
        least, most = limits
        return self._list(self._rules.rule(self._value(items)), least, most)

    def _list(self, item: str, least: int, most: int | None) -> str:
        return self._rules.rule(f'"[" {self._many(item, least, most)} "]"')

    def _many(self, item: str, least: int, most: int | None) -> str:
        more = f"({_COMMA} {item}){{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        return f"{item} {more}" if least else f"({item} {more})?"

    def _object(self, schema: Schema) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list) or len(properties) > MAX_PROPERTIES:
            return self._as_leaf(schema)
        if any(properties.get(str(name), False) is False for name in required):
            return self._as_leaf(schema)
        pairs = [
            (f"{string_literal(string_literal(name))} {_COLON} {self._value(inner)}", name in required)
            for name, inner in properties.items()
            if inner is not False
        ]
        others = schema.get("additionalProperties", True)
        if others is not False:
            pairs.append((self._other_pairs(properties, others), False))
        return self._braces(self._rules.in_order(pairs, _COMMA) if pairs else "")

    def _map(self, schema: Schema) -> str:
        patterns = schema["patternProperties"]
        if schema["additionalProperties"] is not False or not isinstance(patterns, dict) or len(patterns) != 1:
            return self._as_leaf(schema)
        ((name, inner),) = patterns.items()
        if inner is False or (written := name_pattern(name)) is None:
            return self._as_leaf(schema)
        key = self._rules.terminal(pattern(f'"{written}"'))
        return self._braces(self._many(f"{key} {_COLON} {self._value(inner)}", 0, None))

    def _other_pairs(self, properties: Schema, others: JSON) -> str:
        """Return an expression for one or more properties that the schema does not name."""
        name = self._rules.terminal(not_equal_to(map(string_literal, properties), pattern(_NAME)))
        pair = self._rules.rule(f"{name} {_COLON} {self._value(others)}")
        return f"{pair} ({_COMMA} {pair})*"

    def _braces(self, pairs: str) -> str:
        return self._rules.rule(" ".join(filter(None, ['"{"', pairs, '"}"'])))


def _plain(schema: Schema) -> Schema:
    """Return the schema without keywords of other types than its own."""
    type_ = schema.get("type")
    if not isinstance(type_, str) or type_ not in TYPES:
        return schema
    return {key: value for key, value in schema.items() if type_ in _KEYWORDS.get(key, TYPES)}


def _limits(schema: Schema, least: str, most: str, largest: int) -> tuple[int, int | None] | None:
    """Return the limits of a length; None if llguidance should compile the schema."""
    found = bounds(schema, least, most)
    if found is None:
        return None
    lower, upper = found[0], found[0] if found[1] is None else found[1]
    return found if lower <= upper and max(lower, upper) <= largest else None


def _patterns(schema: Schema) -> list[str] | None:
    """Return the regexes of a text's JSON; None if llguidance should compile the schema."""
    parts = schema.get("allOf", [])
    if not isinstance(parts, list):
        return None
    own: list[JSON] = [{"pattern": schema["pattern"]}] if "pattern" in schema else []
    found: list[str] = []
    for part in [*own, *parts]:
        if not isinstance(part, dict) or part.keys() != {"pattern"}:
            return None
        escaped = escaped_pattern(part["pattern"]) if isinstance(part["pattern"], str) else None
        if escaped is None:
            return None
        found.append(escaped)
    return found


def _permitted_values(schema: Schema) -> list[JSON]:
    """Return the listed values of the schema's type; none if the schema has other keywords."""
    keys = schema.keys()
    if not keys <= {"type", "const", "enum"} or {"const", "enum"} <= keys:
        return []
    types = types_of(schema)
    return [value for value in listed_values(schema) or () if type_of(value) in types]
