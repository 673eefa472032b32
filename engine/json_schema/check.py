"""Check that a JSON schema (draft 2020-12) can be enforced exactly, before `grammar` passes it to llguidance. Pure.

llguidance rejects most keywords that it does not know. This module rejects the keywords that llguidance accepts and
does not enforce, and names the place of each. Keywords in no table here are annotations: by the specification they
forbid nothing.
"""

import math
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from urllib.parse import unquote

from msgspec import Struct

from engine.constraint import GrammarError
from engine.json_schema.formats import UNENFORCEABLE
from engine.json_schema.limits import LIMITS, MAX_PERIOD, clamped, digits, is_enforced
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
MAX_REF_CHAIN = 16
"""References that are followed one after the other."""

_MAPS = ("properties", "patternProperties")
_DEFINITIONS = ("$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_TEXTS = ("const", "enum", "pattern", "patternProperties")
_IN_PLACE = ("anyOf", "oneOf", "allOf")


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
        places = {name: _place(pointer) for pointer, name in self._names.items()}
        return CheckedSchema(schema, places, tuple(dict.fromkeys(self._unenforced)))

    def schema(self, schema: JSON, place: str) -> JSON:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            return self._leave_out(GrammarError("a schema must be an object", place))
        schema = rewritten(schema, self._follow)
        exact: Schema = {}
        for key, value in schema.items():
            if key in ENFORCED and key not in _DEFINITIONS:
                try:
                    exact[key] = self._keyword(key, value, schema, _at(place, key))
                except GrammarError as error:
                    self._leave_out(error)
        return exact

    def _leave_out(self, error: GrammarError) -> JSON:
        """Return a schema that forbids nothing if `relaxed` is set. Raises `error` otherwise."""
        if not self._relaxed:
            raise error
        self._unenforced.append(error.place)
        return {}

    def _keyword(self, key: str, value: JSON, schema: Schema, place: str) -> JSON:
        """Return the keyword's checked value. Raises GrammarError."""
        if key in UNSUPPORTED:
            raise GrammarError(f"the keyword `{key}` is not supported", place)
        if key in _TEXTS and any(map(UNWRITABLE.search, texts(key, value))):
            raise GrammarError("a required control character is not supported", place)
        if key == "$ref" and isinstance(value, str):
            return self._reference(value, place)
        if key in _MAPS and isinstance(value, dict):
            return {name: self.schema(each, _at(place, name)) for name, each in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self.schema(each, f"{place}[{n}]") for n, each in enumerate(value)]
        if key in _SINGLES:
            if isinstance(value, list):
                raise GrammarError(f"`{key}` as a list is not supported beside `prefixItems`", place)
            return self.schema(value, place)
        if key in LIMITS:
            return self._limit(key, value, schema, place)
        if key == "format" and isinstance(value, str) and value in UNENFORCEABLE:
            raise GrammarError(f"the format {value!r} is not supported", place)
        if key == "multipleOf":
            self._check_multiple(value, place)
        if key == "minProperties":
            _check_min_properties(value, schema.get("required"), place)
        return value

    def _limit(self, key: str, value: JSON, schema: Schema, place: str) -> JSON:
        if key.startswith("exclusive") and isinstance(value, bool):
            raise GrammarError(f"`{key}` must be a number", place)
        types = schema.get("type")
        type_names = types if isinstance(types, list) else [types]
        limit = clamped(key, value, "integer" in type_names and "number" not in type_names)
        if not is_enforced(key, limit):
            raise GrammarError(f"`{key}` beyond 2**53 is not supported", place)
        return limit

    def _check_multiple(self, value: JSON, place: str) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            return  # llguidance reports the fault
        number = digits(value)
        for factor in (2, 5):
            while number % factor == 0:
                number //= factor
        period = math.lcm(self._period, number)
        if period > MAX_PERIOD:
            raise GrammarError(f"`multipleOf` of more than {MAX_PERIOD} steps is not supported", place)
        self._period = period

    def _reference(self, target: str, place: str) -> JSON:
        """Return a reference to the checked definition. Raises GrammarError."""
        pointer = self._pointer(target)
        if pointer == "#":
            return pointer
        try:
            schema = _resolved(self._root, pointer)
        except LookupError as error:
            message = f"the `$ref` to {target!r:.100} does not resolve within the schema"
            raise GrammarError(message, "$ref" if not self._relaxed else place) from error
        if pointer not in self._names:
            name = self._names[pointer] = f"d{len(self._names)}"
            self._pending.append((name, schema, _place(pointer)))
        return f"#/$defs/{self._names[pointer]}"

    def _pointer(self, target: str) -> str:
        """Return the JSON pointer of a reference within the document. Return other references unchanged."""
        root = self._root if isinstance(self._root, dict) else {}
        for key in ("$id", "id"):
            base = root.get(key)
            if isinstance(base, str) and base and target.startswith(base.rstrip("#")):
                target = "#" + target[len(base.rstrip("#")) :].lstrip("#")
        target = unquote(target)
        if target.startswith("#") and target[1:2] not in ("", "/"):
            return next((pointer for pointer, name in _anchors(root) if name == target[1:]), target)
        return "#" if target == "#/" else target

    def _follow(self, schema: JSON) -> Schema:
        """Return the schema at the end of a chain of references."""
        for _ in range(MAX_REF_CHAIN):
            if not isinstance(schema, dict) or not isinstance(target := schema.get("$ref"), str):
                break
            try:
                schema = _resolved(self._root, self._pointer(target))
            except LookupError:
                return {}
        return schema if isinstance(schema, dict) else {}

    def _cycle(self, root: JSON) -> list[str]:
        """Return references that form a cycle without consuming any input."""
        graph = {"#": list(_in_place_references(root))}
        graph |= {f"#/$defs/{name}": list(_in_place_references(schema)) for name, schema in self._definitions.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def _original(self, target: str) -> str:
        return next((pointer for pointer, name in self._names.items() if target == f"#/$defs/{name}"), target)


def _in_place_references(schema: JSON) -> Iterator[str]:
    """Yield the references that apply to the value itself, not to a part of it."""
    if not isinstance(schema, dict):
        return
    if isinstance(target := schema.get("$ref"), str):
        yield target
    for key in _IN_PLACE:
        if isinstance(schemas := schema.get(key), list):
            for each in schemas:
                yield from _in_place_references(each)


def _resolved(root: JSON, pointer: str) -> JSON:
    """Return the schema that a JSON pointer refers to. Raises LookupError."""
    if pointer == "#":
        return root
    if not pointer.startswith("#/"):
        raise LookupError(pointer)
    found = root
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found[step]
        elif isinstance(found, list) and step.isdecimal():
            found = found[int(step)]
        else:
            raise LookupError(pointer)
    return found


def _anchors(root: JSON) -> Iterator[tuple[str, str]]:
    """Yield pointer and name of each anchor."""
    pending = [("#", root)]
    while pending:
        pointer, value = pending.pop()
        if isinstance(value, dict):
            for key in ("$anchor", "$dynamicAnchor", "$id", "id"):
                if isinstance(name := value.get(key), str):
                    yield pointer, name.removeprefix("#")
            pending += [(_step(pointer, name), each) for name, each in value.items()]
        elif isinstance(value, list):
            pending += [(f"{pointer}/{n}", each) for n, each in enumerate(value)]


def _check_min_properties(least: JSON, required: JSON, place: str) -> None:
    """Raise GrammarError if the model could reach `minProperties` by repeating an undeclared property."""
    n_required = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > max(n_required, 1):
        raise GrammarError("`minProperties` beyond 1 and the number of `required` properties is not supported", place)


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _step(pointer: str, name: str) -> str:
    """Return the JSON pointer (RFC 6901) to a member."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _place(pointer: str) -> str:
    return ".".join(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
