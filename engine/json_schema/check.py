"""Whether a JSON schema (draft 2020-12) can be held to the letter, before `grammar` hands it to llguidance. Pure.

llguidance refuses most of what it doesn't know. What it takes and would not hold is refused here; and whatever is
refused is named with its place. Keywords in no table here are annotations: by the specification they forbid nothing.
"""

import math
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from urllib.parse import unquote

from msgspec import Struct

from engine.constraint import GrammarError
from engine.json_schema.formats import UNENFORCEABLE
from engine.json_schema.limits import LARGEST_PERIOD, LIMITS, clamped, digits, is_enforced
from engine.json_schema.rewrites import rewritten
from engine.json_schema.texts import UNWRITTEN, texts
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
"""What is held, some of it within bounds; see below, and llguidance's `docs/json_schema.md`."""

UNSUPPORTED = frozenset(
    (
        *("not", "if", "then", "else", "dependencies", "dependentRequired", "dependentSchemas"),
        *("additionalItems", "contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems"),
        *("propertyNames", "unevaluatedProperties", "$dynamicRef", "$recursiveRef", "x-guidance"),
    )
)
"""What would forbid something (or, the last, loosen everything), and is refused."""

ENFORCED = SUPPORTED | UNSUPPORTED
_LONGEST_WAY = 16
"""References that lead to the next."""

_MAPS = ("properties", "patternProperties")
_DEFINITIONS = ("$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_TEXTS = ("const", "enum", "pattern", "patternProperties")
_IN_PLACE = ("anyOf", "oneOf", "allOf")


class CheckedSchema(Struct, frozen=True):
    """A schema that llguidance can be asked to enforce."""

    schema: JSON
    places: Mapping[str, str]
    """Place of each entry of its `$defs` in the original."""
    unenforced: tuple[str, ...] = ()
    """Places of keywords that were left out although they forbid something."""


def checked(schema: JSON, relaxed: bool = False) -> CheckedSchema:
    """Return the same schema in the keywords that are enforced. Raises GrammarError.

    `relaxed` leaves out every keyword that can't be enforced, and names it.
    """
    check = _Check(schema, relaxed)
    result = check.schema(schema, "")
    return check.result(result)


class _Check:
    def __init__(self, root: JSON, relaxed: bool) -> None:
        self._root = root
        self._relaxed = relaxed
        self._names: dict[str, str] = {}
        """Names of the definitions by the pointers to them."""
        self._found: dict[str, JSON] = {}
        """Definitions by their names."""
        self._waiting: list[tuple[str, JSON, str]] = []
        self._unenforced: list[str] = []
        self._period = 1

    def result(self, schema: JSON) -> CheckedSchema:
        while self._waiting:
            name, waiting, place = self._waiting.pop()
            self._found[name] = self.schema(waiting, place)
        if isinstance(schema, dict) and self._found:
            schema = {**schema, "$defs": self._found}
        while cycle := self._cycle(schema):
            self._left_out(
                GrammarError(f"the `$ref` to {self._original(cycle[0])!r:.100} leads back to itself", "$ref")
            )
            if not (names := [target.removeprefix("#/$defs/") for target in cycle if target != "#"]):
                return CheckedSchema({}, {}, ("$ref",))
            self._found[names[0]] = {}
        places = {name: _place(pointer) for pointer, name in self._names.items()}
        return CheckedSchema(schema, places, tuple(dict.fromkeys(self._unenforced)))

    def schema(self, schema: JSON, place: str) -> JSON:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            return self._left_out(GrammarError("a schema must be an object", place))
        schema = rewritten(schema, self._follow)
        kept: Schema = {}
        for key, value in schema.items():
            if key in ENFORCED and key not in _DEFINITIONS:
                try:
                    kept[key] = self._keyword(key, value, schema, _at(place, key))
                except GrammarError as error:
                    self._left_out(error)
        return kept

    def _left_out(self, error: GrammarError) -> JSON:
        """Return a schema that forbids nothing, where that is allowed. Raises the error."""
        if not self._relaxed:
            raise error
        self._unenforced.append(error.place)
        return {}

    def _keyword(self, key: str, value: JSON, schema: Schema, place: str) -> JSON:
        """Return its value. Raises GrammarError."""
        if key in UNSUPPORTED:
            raise GrammarError(f"the keyword `{key}` is not supported", place)
        if key in _TEXTS and any(map(UNWRITTEN.search, texts(key, value))):
            raise GrammarError("a control character in a text is not supported", place)
        if key == "$ref" and isinstance(value, str):
            return self._reference(value, place)
        if key in _MAPS and isinstance(value, dict):
            return {name: self.schema(each, _at(place, name)) for name, each in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self.schema(each, f"{place}[{n}]") for n, each in enumerate(value)]
        if key in _SINGLES:
            if isinstance(value, list):
                raise GrammarError(f"`{key}` with a list is not supported beside `prefixItems`", place)
            return self.schema(value, place)
        if key in LIMITS:
            return self._limit(key, value, schema, place)
        if key == "format" and isinstance(value, str) and value in UNENFORCEABLE:
            raise GrammarError(f"the format {value!r} is not supported", place)
        if key == "multipleOf":
            self._multiple(value, place)
        if key == "minProperties":
            _check_least(value, schema.get("required"), place)
        return value

    def _limit(self, key: str, value: JSON, schema: Schema, place: str) -> JSON:
        if key.startswith("exclusive") and isinstance(value, bool):
            raise GrammarError(f"`{key}` must be a number", place)
        types = schema.get("type")
        named = types if isinstance(types, list) else [types]
        limit = clamped(key, value, "integer" in named and "number" not in named)
        if not is_enforced(key, limit):
            raise GrammarError(f"`{key}` is supported up to 2**53 only", place)
        return limit

    def _multiple(self, value: JSON, place: str) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            return  # llguidance says what is wrong with it
        number = digits(value)
        for factor in (2, 5):
            while number % factor == 0:
                number //= factor
        period = math.lcm(self._period, number)
        if period > LARGEST_PERIOD:
            raise GrammarError("`multipleOf` is supported for small numbers only", place)
        self._period = period

    def _reference(self, target: str, place: str) -> JSON:
        """Return a reference to what was checked. Raises GrammarError."""
        pointer = self._pointer(target)
        if pointer == "#":
            return pointer
        try:
            schema = _pointed_at(self._root, pointer)
        except LookupError as error:
            message = f"a `$ref` to {target!r:.100} is not supported, or leads nowhere"
            raise GrammarError(message, "$ref" if not self._relaxed else place) from error
        if pointer not in self._names:
            name = self._names[pointer] = f"d{len(self._names)}"
            self._waiting.append((name, schema, _place(pointer)))
        return f"#/$defs/{self._names[pointer]}"

    def _pointer(self, target: str) -> str:
        """Return the JSON pointer that a reference within the document means; of any other, itself."""
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
        """Return the schema to which a chain of references leads."""
        for _ in range(_LONGEST_WAY):
            if not isinstance(schema, dict) or not isinstance(target := schema.get("$ref"), str):
                break
            try:
                schema = _pointed_at(self._root, self._pointer(target))
            except LookupError:
                return {}
        return schema if isinstance(schema, dict) else {}

    def _cycle(self, root: JSON) -> list[str]:
        """Return the references that lead to themselves before anything is written."""
        graph = {"#": list(_same_value(root))}
        graph |= {f"#/$defs/{name}": list(_same_value(schema)) for name, schema in self._found.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def _original(self, target: str) -> str:
        return next((pointer for pointer, name in self._names.items() if target == f"#/$defs/{name}"), target)


def _same_value(schema: JSON) -> Iterator[str]:
    """Yield the references to schemas that speak of the same value."""
    if not isinstance(schema, dict):
        return
    if isinstance(target := schema.get("$ref"), str):
        yield target
    for key in _IN_PLACE:
        if isinstance(schemas := schema.get(key), list):
            for each in schemas:
                yield from _same_value(each)


def _pointed_at(root: JSON, pointer: str) -> JSON:
    """Raises LookupError."""
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
    """Yield the pointers to all anchors with their names."""
    waiting = [("#", root)]
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, dict):
            for key in ("$anchor", "$dynamicAnchor", "$id", "id"):
                if isinstance(name := value.get(key), str):
                    yield pointer, name.removeprefix("#")
            waiting += [(_step(pointer, name), each) for name, each in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{pointer}/{n}", each) for n, each in enumerate(value)]


def _check_least(least: JSON, required: JSON, place: str) -> None:
    """Raises GrammarError: properties that are not named may be written twice, and are then fewer than it seems."""
    sure = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > max(sure, 1):
        raise GrammarError("`minProperties` is supported up to 1, or to what is `required`", place)


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _step(pointer: str, name: str) -> str:
    """RFC 6901."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _place(pointer: str) -> str:
    return ".".join(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
