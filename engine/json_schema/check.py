"""Check that a JSON schema (draft 2020-12) can be enforced exactly, before `grammar` passes it to llguidance. Pure.

llguidance rejects most keywords that it does not know. This module rejects the keywords that llguidance accepts and
does not enforce, and names the place of each. Keywords in no table here are annotations: by the specification they
forbid nothing.
"""

import math
from collections.abc import Callable, Mapping

from msgspec import Struct

from engine.constraint import GrammarError
from engine.json_schema.arrays import MAX_PAIRED, MAX_UNIQUE
from engine.json_schema.conditionals import MAX_DEPENDENTS
from engine.json_schema.limits import LIMITS, MAX_PERIOD, clamped, digits, is_enforced
from engine.json_schema.references import Document, cycle_of, place_of, pointer_of, resolved
from engine.json_schema.rewrites import MAX_SUBSETS, rewritten
from engine.json_schema.texts import UNWRITABLE, texts
from engine.json_schema.values import ENFORCED, JSON, UNSUPPORTED, Schema

_DEFINITIONS = ("$defs", "definitions")
_TEXTS = ("const", "enum", "pattern", "patternProperties")
"""Keywords with texts that a value must contain."""

_OPPOSITE = " unless the negation of its schema can be written with supported keywords"
_UNLESS = {
    "not": _OPPOSITE,
    "if": _OPPOSITE,
    "contains": f"{_OPPOSITE}, or `maxContains` is left out",
    **dict.fromkeys(("dependentRequired", "dependentSchemas"), f" for more than {MAX_DEPENDENTS} properties"),
    "uniqueItems": f" unless `items` lists at most {MAX_UNIQUE} values, or {MAX_PAIRED} for at most 2 items",
    "propertyNames": " unless it is a pattern, a length or a list, and `patternProperties` is left out",
    **dict.fromkeys(
        ("unevaluatedItems", "unevaluatedProperties"), " beside keywords that evaluate a part of some values only"
    ),
}
"""Conditions under which a keyword is supported."""


class CheckedSchema(Struct, frozen=True):
    """A schema that llguidance can enforce."""

    schema: JSON
    places: Mapping[str, str]
    """Place in the original schema of each entry of `$defs`."""
    unenforced: tuple[str, ...] = ()
    """Places of the keywords that were left out although they forbid something."""
    origins: Mapping[str, str] = {}
    """Place in the original schema of each part that a rewriting added."""


def checked(schema: JSON, relaxed: bool = False) -> CheckedSchema:
    """Return an equivalent schema that has only enforced keywords. Raises GrammarError.

    `relaxed` leaves out each keyword that cannot be enforced and lists its place.
    """
    try:
        return _Check(Document(schema), schema, relaxed).result()
    except _TooManyAlternatives:
        if not relaxed:
            raise
        return _Check(Document(schema, has_alternatives=False), schema, relaxed).result()


class _TooManyAlternatives(GrammarError):
    """A schema whose keywords become too many alternatives."""


class _Keyword(Struct, frozen=True):
    """A keyword of a schema."""

    name: str
    value: JSON
    schema: Schema
    place: str


class _Check:
    def __init__(self, document: Document, root: JSON, relaxed: bool) -> None:
        self._root = root
        self._document = document
        self._relaxed = relaxed
        self._names: dict[str, str] = {}
        """Definition names by JSON pointer."""
        self._definitions: dict[str, JSON] = {}
        """Checked definitions by name."""
        self._pending: list[tuple[str, JSON, str]] = []
        """Name, schema and place of each definition that is not checked yet."""
        self._unenforced: list[str] = []
        self._origins: dict[str, str] = {}
        self._period = 1
        self._checks: Mapping[str, Callable[[_Keyword], JSON]] = {
            "$ref": self._reference,
            **dict.fromkeys(("properties", "patternProperties"), self._map),
            **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), self._list),
            **dict.fromkeys(("items", "additionalProperties"), self._single),
            **dict.fromkeys(LIMITS, _limit),
            "multipleOf": self._multiple_of,
            "minProperties": _min_properties,
        }
        """Functions that return the checked value of a keyword, or raise GrammarError. Malformed values stay, since
        llguidance reports them."""

    def result(self) -> CheckedSchema:
        schema = self.schema(self._root, "")
        while self._pending:
            name, pending, place = self._pending.pop()
            self._definitions[name] = self.schema(pending, place)
        if isinstance(schema, dict) and self._definitions:
            schema = {**schema, "$defs": self._definitions}
        while cycle := cycle_of(schema, self._definitions):
            self._leave_out(
                GrammarError(f"the `$ref` to {self._original(cycle[0])!r:.100} refers back to itself", "$ref")
            )
            if not (names := [target.removeprefix("#/$defs/") for target in cycle if target != "#"]):
                return CheckedSchema({}, {}, ("$ref",))
            self._definitions[names[0]] = {}
        places = {name: place_of(pointer) for pointer, name in self._names.items()}
        return CheckedSchema(schema, places, tuple(dict.fromkeys(self._unenforced)), self._origins)

    def schema(self, schema: JSON, place: str) -> JSON:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            return self._leave_out(GrammarError("a schema must be an object", place))
        if not self._document.take_step() and self._document.has_alternatives:
            place = original_place(place, self._origins)
            raise _TooManyAlternatives("its alternatives are too many", place)
        original, schema = schema, rewritten(schema, self._document)
        self._note_origins(original, schema, place)
        exact: Schema = {}
        for key, value in schema.items():
            if key in ENFORCED and key not in _DEFINITIONS:
                try:
                    exact[key] = self._keyword(_Keyword(key, value, schema, _at(place, key)))
                except _TooManyAlternatives:
                    raise
                except GrammarError as error:
                    self._leave_out(error)
        return exact

    def _note_origins(self, original: Schema, schema: Schema, place: str) -> None:
        """Note the keyword that was rewritten into each new part of a schema, for errors."""
        gone = next((key for key in original if key in ENFORCED and key not in schema), None)
        if gone is None:
            return
        for key, value in schema.items():
            if key not in original:
                self._origins[_at(place, key)] = _at(place, gone)
            elif isinstance(value, list) and isinstance(before := original[key], list):
                added = range(len(before), len(value))
                self._origins |= {f"{_at(place, key)}[{n}]": _at(place, gone) for n in added}

    def _leave_out(self, error: GrammarError) -> JSON:
        """Return a schema that forbids nothing if `relaxed` is set. Raises `error` otherwise."""
        place = original_place(error.place, self._origins)
        if not self._relaxed:
            raise GrammarError(str(error), place) from error
        self._unenforced.append(place)
        return {}

    def _keyword(self, keyword: _Keyword) -> JSON:
        """Return the keyword's checked value. Raises GrammarError."""
        name, value = keyword.name, keyword.value
        if name in UNSUPPORTED:
            raise GrammarError(f"the keyword `{name}` is not supported{_UNLESS.get(name, '')}", keyword.place)
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


def _min_properties(keyword: _Keyword) -> JSON:
    """Raise GrammarError if the model could reach `minProperties` by repeating an undeclared property."""
    least, required = keyword.value, keyword.schema.get("required")
    n_required = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > max(n_required, 1):
        message = (
            "`minProperties` beyond 1 and the number of `required` properties is not supported,"
            f" unless `additionalProperties` is false and there are at most {MAX_SUBSETS} combinations"
        )
        raise GrammarError(message, keyword.place)
    return least


def original_place(place: str, origins: Mapping[str, str]) -> str:
    """Return the place of the keyword that was rewritten, for a place inside a part that a rewriting added."""
    for added, origin in origins.items():
        if place.startswith(added) and place[len(added) :][:1] in ("", ".", "["):
            return origin
    return place


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
