"""Whether a JSON schema (draft 2020-12) can be held to the letter, before `grammar` hands it to llguidance. Pure.

llguidance refuses most of what it doesn't know. What it takes and would not hold is refused here; and whatever is
refused is named with its place. Keywords in no table here are annotations: by the specification they forbid nothing.
"""

import itertools
import math
import re
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias
from urllib.parse import unquote

from engine.constraint import GrammarError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

FORMATS = frozenset(("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"))
"""Of texts. For numbers, a format is an annotation."""

SUPPORTED = frozenset(
    (
        *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
        *("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties"),
        *("items", "prefixItems", "minItems", "maxItems"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""What is held, some of it within bounds; see below, and llguidance's `docs/json_schema.md`."""

UNSUPPORTED = frozenset(
    (
        *("not", "if", "then", "else", "dependencies", "dependentRequired", "dependentSchemas"),
        *("additionalItems", "contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems"),
        *("propertyNames", "unevaluatedProperties", "$dynamicRef", "$dynamicAnchor", "$recursiveRef"),
        *("$recursiveAnchor", "$anchor", "x-guidance"),
    )
)
"""What would forbid something (or, the last, loosen everything), and is refused."""

IDLE: Mapping[str, JSON] = {"uniqueItems": False, "additionalItems": True, "propertyNames": True}
"""Keywords that forbid nothing with this value, and are left out. Tools write them of habit."""

LARGEST_PERIOD = 10_000
"""Of all `multipleOf` together: the automaton for one has as many states, but for factors of 2 and 5. A million of
them take llguidance 7 s and half a GB, and its own limits don't count them."""

_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LAST = 2**63 - 1024
"""The last float before those that an integer of 64 bits has no room for."""

_UNWRITTEN = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
"""The characters for which `grammar` has no escape: llguidance leaves them out of a text that must have them."""
_ATOM = re.compile(
    r"\[(?P<one>\\[av]|\\x..|\\u....|\\[xu]\{\w+\}|[^\\])\]|\[\^?\]?(?:\\.|[^\\\]])*\]"
    r"|\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|[xuU]\{(?P<any>[0-9a-fA-F]+)\}|.)|.",
    re.DOTALL,
)
"""Of a regex: a class, of one or more, or a character."""

_HELD = SUPPORTED | UNSUPPORTED

_YEAR = "([1-9].{3}|0[1-9].{2}|00[1-9].|000[1-9])"
TIGHTER = {"date": f"^{_YEAR}", "time": "^.{6}[0-5]", "date-time": f"^{_YEAR}.{{13}}[0-5]"}
"""No year 0 and no leap second: RFC 3339 has them, and Python, say, can't read them."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_TEXTS = ("const", "enum", "pattern", "patternProperties")
_IN_PLACE = ("anyOf", "oneOf", "allOf")


def accepted(schema: JSON) -> JSON:
    """The same schema, without what forbids nothing: annotations too. Raises GrammarError."""
    check = _Check()
    result = check.schema(schema, "")
    check.references()
    return result


class _Check:
    def __init__(self) -> None:
        self._seen: dict[str, JSON] = {}
        """The schemas, by their JSON pointers."""
        self._period = 1

    def schema(self, schema: JSON, place: str, pointer: str = "#") -> JSON:
        if isinstance(schema, bool):
            self._seen[pointer] = schema
            return schema
        if not isinstance(schema, dict):
            raise GrammarError("a schema must be an object", place)
        self._seen[pointer] = schema
        kept = {
            key: value for key, value in schema.items() if key in _HELD and not (key in IDLE and IDLE[key] is value)
        }
        for key in kept:
            if key in UNSUPPORTED:
                raise GrammarError(f"the keyword `{key}` is not supported", _at(place, key))
        self._bounds(kept, place)
        if (pattern := TIGHTER.get(str(kept.get("format")))) and isinstance(others := kept.get("allOf", []), list):
            kept["allOf"] = [*others, {"pattern": pattern}]
        for key, value in kept.items():
            kept[key] = self._inside(key, value, _at(place, key), f"{pointer}/{key}")
        return kept

    def _inside(self, key: str, value: JSON, place: str, pointer: str) -> JSON:
        if key in _TEXTS and any(map(_UNWRITTEN.search, _texts(key, value))):
            raise GrammarError("a control character in a text is not supported", place)
        if key in _MAPS and isinstance(value, dict):
            return {name: self.schema(each, _at(place, name), _step(pointer, name)) for name, each in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self.schema(each, f"{place}[{n}]", f"{pointer}/{n}") for n, each in enumerate(value)]
        if key in _SINGLES:
            if isinstance(value, list):
                raise GrammarError(f"`{key}` with a list is not supported: use `prefixItems`", place)
            return self.schema(value, place, pointer)
        return value

    def _bounds(self, schema: dict[str, JSON], place: str) -> None:
        for key in ("exclusiveMinimum", "exclusiveMaximum"):
            if isinstance(schema.get(key), bool):
                raise GrammarError(f"`{key}` must be a number", _at(place, key))
        types = schema.get("type")
        named = types if isinstance(types, list) else [types]
        for key in _LIMITS:
            if key in schema:
                schema[key] = _narrowed(key, schema[key], "integer" in named and "number" not in named)
            if not _kept(key, schema.get(key)):
                raise GrammarError(f"`{key}` is supported up to 2**53 only", _at(place, key))
        format_ = schema.get("format")
        if schema.get("type") not in ("integer", "number") and format_ is not None and format_ not in FORMATS:
            raise GrammarError(f"the format {format_!r} is not supported", _at(place, "format"))
        self._multiples(schema.get("multipleOf"), _at(place, "multipleOf"))
        # Properties that are not named in the schema may be written twice: then there are fewer than were counted.
        least, required = schema.get("minProperties"), schema.get("required")
        sure = len(required) if isinstance(required, list) else 0
        if isinstance(least, int) and least > max(sure, 1):
            raise GrammarError(
                "`minProperties` is supported up to 1, or to what is `required`", _at(place, "minProperties")
            )

    def _multiples(self, value: JSON, place: str) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            return  # llguidance says what is wrong with it
        number = _digits(value)
        for factor in (2, 5):
            while number % factor == 0:
                number //= factor
        self._period = math.lcm(self._period, number)
        if self._period > LARGEST_PERIOD:
            raise GrammarError("`multipleOf` is supported for small numbers only", place)

    def references(self) -> None:
        """Those to what was looked at here; and none that leads to itself before anything is written."""
        graph = {pointer: list(_same_value(schema, pointer)) for pointer, schema in self._seen.items()}
        for target in itertools.chain(*graph.values()):
            if target not in self._seen:
                raise GrammarError(f"a `$ref` to {target!r:.100} is not supported, or leads nowhere", "$ref")
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            raise GrammarError(f"the `$ref` to {error.args[1][0]!r:.100} leads back to itself", "$ref") from error


def _same_value(schema: JSON, pointer: str) -> Iterator[str]:
    """The schemas that speak of the same value."""
    if not isinstance(schema, dict):
        return
    if isinstance(target := schema.get("$ref"), str):
        yield unquote(target)
    for key in _IN_PLACE:
        if isinstance(schemas := schema.get(key), list):
            yield from (f"{pointer}/{key}/{n}" for n in range(len(schemas)))


def _narrowed(key: str, limit: JSON, integer: bool) -> JSON:
    """A limit as wide as 64 bits, as code generators write it, is brought in to the last one that llguidance takes.

    No limit at all would be looser. So some thousand integers of 64 bits can't be written, those next to the lowest; of
    a number, next to the highest too. A number's limit that is wider is refused, for too much would be lost.
    """
    if not isinstance(limit, int | float):
        return limit
    if key == "minimum" and (integer or limit >= -(2**63)):
        return max(limit, -_LAST)
    if key == "maximum" and not integer and limit <= 2**63:
        return min(limit, _LAST)
    return limit


def _kept(key: str, limit: JSON) -> bool:
    """Whether llguidance holds that limit, or a tighter one: to it, it is a float, and an integer has 64 bits."""
    if not isinstance(limit, int | float) or abs(limit) < 2**53:
        return True
    rounded = int(float(min(max(limit, -(2**64)), 2**64)))
    held = min(max(rounded, -(2**63)), 2**63 - 1)
    return (key == "minimum" and held >= limit) or (key == "maximum" and held <= limit)


def _texts(key: str, value: JSON) -> Iterator[str]:
    """What must be written; of a regex, each character, but for those of a class: of these one can be."""
    if isinstance(value, str):
        yield from map(_character, _ATOM.finditer(value)) if key.startswith("pattern") else (value,)
    elif isinstance(value, dict | list):
        inner = value if isinstance(value, list) or key == "patternProperties" else value.values()
        for each in inner:
            yield from _texts(key, each)


def _character(atom: re.Match[str]) -> str:
    if atom["one"]:
        atom = _ATOM.fullmatch(atom["one"]) or atom
    number = atom["x"] or atom["u"] or atom["U"] or atom["any"]
    if number:
        return chr(min(int(number, 16), sys.maxunicode))
    return {r"\a": "\a", r"\v": "\v"}.get(atom[0], "" if atom[0].startswith("[") else atom[0])


def _digits(value: int | float) -> int:
    """Its decimal digits, without the point: 0.25 -> 25."""
    return int("".join(map(str, Decimal(repr(value)).as_tuple().digits)))


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _step(pointer: str, name: str) -> str:
    """RFC 6901."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
