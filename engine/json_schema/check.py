"""Check that a JSON schema (draft 2020-12) can be enforced exactly, before `grammar` passes it to llguidance. Pure.

llguidance rejects most keywords that it does not know. This module rejects the keywords that llguidance accepts and
does not enforce, and names the place of each. Keywords in no table here are annotations: by the specification they
forbid nothing.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from graphlib import CycleError, TopologicalSorter

from msgspec import Struct

from engine.constraint import GrammarError
from engine.json_schema.formats import UNENFORCEABLE
from engine.json_schema.limits import LIMITS, MAX_PERIOD, clamped, digits, is_enforced
from engine.json_schema.references import followed, in_place_references, place_of, pointer_of, resolved
from engine.json_schema.rewrites import rewritten
from engine.json_schema.texts import UNWRITABLE, texts
from engine.json_schema.values import JSON as JSON
from engine.json_schema.values import Schema

SUPPORTED = frozenset(
    (
        *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
        *("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties"),
        *("items", "prefixItems", "minItems", "maxItems"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""Keywords that are enforced, some of them within bounds; see llguidance's `docs/json_schema.md`."""

UNSUPPORTED = frozenset(
    (
        *("not", "if", "then", "else", "dependencies", "dependentRequired", "dependentSchemas"),
        *("additionalItems", "contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems"),
        *("propertyNames", "unevaluatedProperties", "$dynamicRef", "$recursiveRef", "x-guidance"),
    )
)
"""Keywords that forbid something and are rejected. The last one would loosen the whole schema."""

ENFORCED = SUPPORTED | UNSUPPORTED
_DEFINITIONS = ("$defs", "definitions")
_TEXTS = ("const", "enum", "pattern", "patternProperties")


class CheckedSchema(Struct, frozen=True):
    """A schema that llguidance can enforce."""

    schema: JSON
    places: Mapping[str, str]
    """Place in the original schema of each entry of `$defs`."""
    unenforced: tuple[str, ...] = ()
    """Places of the keywords that were left out although they forbid something."""


def checked(schema: JSON, relaxed: bool = False) -> CheckedSchema:
    """Return an equivalent schema that has only enforced keywords. Raises GrammarError.

    `relaxed` leaves out each keyword that cannot be enforced and lists its place.
    """
    check = _Check(schema, relaxed)
    result = check.schema(schema, "")
    return check.result(result)


class _Keyword(Struct, frozen=True):
    """A keyword of a schema."""

    name: str
    value: JSON
    schema: Schema
    place: str


class _Check:
    def __init__(self, root: JSON, relaxed: bool) -> None:
        self._root = root
        self._relaxed = relaxed
        self._names: dict[str, str] = {}
        """Definition names by JSON pointer."""
        self._definitions: dict[str, JSON] = {}
        """Checked definitions by name."""
        self._pending: list[tuple[str, JSON, str]] = []
        """Name, schema and place of each definition that is not checked yet."""
        self._unenforced: list[str] = []
        self._period = 1
        self._checks: Mapping[str, Callable[[_Keyword], JSON]] = {
            "$ref": self._reference,
            **dict.fromkeys(("properties", "patternProperties"), self._map),
            **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), self._list),
            **dict.fromkeys(("items", "additionalProperties"), self._single),
            **dict.fromkeys(LIMITS, _limit),
            "format": _format,
            "multipleOf": self._multiple_of,
            "minProperties": _min_properties,
        }
        """Functions that return the checked value of a keyword, or raise GrammarError. Malformed values stay, since
        llguidance reports them."""

    def result(self, schema: JSON) -> CheckedSchema:
        while self._pending:
            name, pending, place = self._pending.pop()
            self._definitions[name] = self.schema(pending, place)
        if isinstance(schema, dict) and self._definitions:
            schema = {**schema, "$defs": self._definitions}
        while cycle := self._cycle(schema):
            self._leave_out(
                GrammarError(f"the `$ref` to {self._original(cycle[0])!r:.100} refers back to itself", "$ref")
            )
            if not (names := [target.removeprefix("#/$defs/") for target in cycle if target != "#"]):
                return CheckedSchema({}, {}, ("$ref",))
            self._definitions[names[0]] = {}
        places = {name: place_of(pointer) for pointer, name in self._names.items()}
        return CheckedSchema(schema, places, tuple(dict.fromkeys(self._unenforced)))

    def schema(self, schema: JSON, place: str) -> JSON:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            return self._leave_out(GrammarError("a schema must be an object", place))
        schema = rewritten(schema, partial(followed, self._root))
        exact: Schema = {}
        for key, value in schema.items():
            if key in ENFORCED and key not in _DEFINITIONS:
                try:
                    exact[key] = self._keyword(_Keyword(key, value, schema, _at(place, key)))
                except GrammarError as error:
                    self._leave_out(error)
        return exact

    def _leave_out(self, error: GrammarError) -> JSON:
        """Return a schema that forbids nothing if `relaxed` is set. Raises `error` otherwise."""
        if not self._relaxed:
            raise error
        self._unenforced.append(error.place)
        return {}

    def _keyword(self, keyword: _Keyword) -> JSON:
        """Return the keyword's checked value. Raises GrammarError."""
        name, value = keyword.name, keyword.value
        if name in UNSUPPORTED:
            raise GrammarError(f"the keyword `{name}` is not supported", keyword.place)
        if name in _TEXTS and any(map(UNWRITABLE.search, texts(name, value))):
            raise GrammarError("a required control character is not supported", keyword.place)
        return self._checks[name](keyword) if name in self._checks else value

    def _reference(self, keyword: _Keyword) -> JSON:
        """Return a reference to the checked definition. Raises GrammarError."""
        target = keyword.value
        if not isinstance(target, str):
            return target
        pointer = pointer_of(self._root, target)
        if pointer == "#":
            return pointer
        try:
            schema = resolved(self._root, pointer)
        except LookupError as error:
            message = f"the `$ref` to {target!r:.100} does not resolve within the schema"
            raise GrammarError(message, "$ref" if not self._relaxed else keyword.place) from error
        if pointer not in self._names:
            name = self._names[pointer] = f"d{len(self._names)}"
            self._pending.append((name, schema, place_of(pointer)))
        return f"#/$defs/{self._names[pointer]}"

    def _map(self, keyword: _Keyword) -> JSON:
        if not isinstance(keyword.value, dict):
            return keyword.value
        return {name: self.schema(each, _at(keyword.place, name)) for name, each in keyword.value.items()}

    def _list(self, keyword: _Keyword) -> JSON:
        if not isinstance(keyword.value, list):
            return keyword.value
        return [self.schema(each, f"{keyword.place}[{n}]") for n, each in enumerate(keyword.value)]

    def _single(self, keyword: _Keyword) -> JSON:
        if isinstance(keyword.value, list):
            message = f"`{keyword.name}` as a list is not supported beside `prefixItems`"
            raise GrammarError(message, keyword.place)
        return self.schema(keyword.value, keyword.place)

    def _multiple_of(self, keyword: _Keyword) -> JSON:
        value = keyword.value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            return value
        number = digits(value)
        for factor in (2, 5):
            while number % factor == 0:
                number //= factor
        period = math.lcm(self._period, number)
        if period > MAX_PERIOD:
            raise GrammarError(f"`multipleOf` of more than {MAX_PERIOD} steps is not supported", keyword.place)
        self._period = period
        return value

    def _cycle(self, root: JSON) -> list[str]:
        """Return references that form a cycle without consuming any input."""
        graph = {"#": list(in_place_references(root))}
        graph |= {f"#/$defs/{name}": list(in_place_references(schema)) for name, schema in self._definitions.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def _original(self, target: str) -> str:
        return next((pointer for pointer, name in self._names.items() if target == f"#/$defs/{name}"), target)


def _limit(keyword: _Keyword) -> JSON:
    name, types = keyword.name, keyword.schema.get("type")
    if name.startswith("exclusive") and isinstance(keyword.value, bool):
        raise GrammarError(f"`{name}` must be a number", keyword.place)
    type_names = types if isinstance(types, list) else [types]
    limit = clamped(name, keyword.value, "integer" in type_names and "number" not in type_names)
    if not is_enforced(name, limit):
        raise GrammarError(f"`{name}` beyond 2**53 is not supported", keyword.place)
    return limit


def _format(keyword: _Keyword) -> JSON:
    if isinstance(keyword.value, str) and keyword.value in UNENFORCEABLE:
        raise GrammarError(f"the format {keyword.value!r} is not supported", keyword.place)
    return keyword.value


def _min_properties(keyword: _Keyword) -> JSON:
    """Raise GrammarError if the model could reach `minProperties` by repeating an undeclared property."""
    least, required = keyword.value, keyword.schema.get("required")
    n_required = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > max(n_required, 1):
        message = "`minProperties` beyond 1 and the number of `required` properties is not supported"
        raise GrammarError(message, keyword.place)
    return least


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
