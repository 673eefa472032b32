"""Full validation of a value by a JSON schema (draft 2020-12), without the keywords of `unverified`. Pure.

`format` and the keywords of content are annotations, as the draft has it by default.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, TypeAlias

from engine.wording import counted
from server.verification import patterns
from server.verification.prefixes import prefixes
from server.verification.unverified import unverified
from server.verification.values import TYPES, equal, number_faults, size_faults, text_faults, type_faults
from server.verification.watch import StringWatch

Schema: TypeAlias = Any
"""An object, or true or false."""
WATCHED = frozenset(("const", "enum", "pattern", "maxLength"))
"""Keywords that a beginning of a string may break."""
MAX_DEPTH = 128
"""Maximum levels of nested schemas and references."""


class VerifiedSchema:
    def __init__(self, root: Schema) -> None:
        self.root = root

    def unverified(self) -> list[str]:
        """Return the paths of keywords that are not verified."""
        return list(unverified(self.root, lambda reference: self._target(reference) is not True))

    def fault(self, value: Any, schema: Schema, depth: int = 0) -> str | None:
        """Return the first reason for which a value does not match; None if it matches."""
        if isinstance(schema, bool):
            return None if schema else "no value is allowed"
        if depth > MAX_DEPTH:
            return "the schema refers to itself without end"
        return next(self._faults(value, schema, depth + 1), None)

    def resolved(self, schema: Schema) -> Schema:
        """Return the schema that a schema refers to if it is a reference only."""
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                return schema
            if any(key in schema for key in ("type", "properties", "items", "additionalProperties")):
                return True  # the reference and its siblings apply together: the full validation does that
            schema = self._target(schema["$ref"])
        return True

    def property(self, schema: Schema, key: str) -> Schema:
        """Return the schema of a property; False if the object must not have it."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict):
            return True
        if key in (properties := schema.get("properties") or {}):
            return properties[key]
        for pattern, found in (schema.get("patternProperties") or {}).items():
            regex = patterns.compiled(pattern)
            if regex is None or regex.search(key):
                return found if regex is not None else True
        return schema.get("additionalProperties", True)

    def key_watch(self, schema: Schema) -> StringWatch | None:
        """Return the check of the beginnings of an object's keys; None if any key may be one."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict) or schema.get("additionalProperties", True) is not False:
            return None
        if schema.get("patternProperties"):
            return None
        return StringWatch(schema.get("properties") or (), (), math.inf, "no allowed property begins so")

    def item(self, schema: Schema, index: int) -> Schema:
        """Return the schema of an item; False if the array must not have it."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict):
            return True
        first, rest = _items(schema)
        return first[index] if index < len(first) else rest

    def allows(self, schema: Schema, kind: str) -> bool:
        """Return False if no value of a JSON type matches. `kind` is `number` for integers too."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict):
            return schema is not False
        types = schema.get("type")
        named = [types] if isinstance(types, str) else types if isinstance(types, list) else list(TYPES)
        return kind in named or (kind == "number" and "integer" in named)

    def watch(self, schema: Schema) -> StringWatch | None:
        """Return the check of a string's beginnings; None if its end is the time for that."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict) or not WATCHED & schema.keys():
            return None
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        texts = None if allowed is None else [each for each in allowed if isinstance(each, str)]
        automaton = prefixes(schema["pattern"]) if isinstance(schema.get("pattern"), str) else None
        return StringWatch(texts, [automaton] if automaton else [], schema.get("maxLength", math.inf))

    def _target(self, reference: str) -> Schema:
        """Return the target of a reference inside this schema; true if it is elsewhere."""
        found = self.root
        if reference in ("#", "#/"):
            return found
        if not reference.startswith("#/"):
            return True
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~").replace("%25", "%")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                return True
        return found

    def _faults(self, value: Any, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        if isinstance(schema.get("$ref"), str):
            yield from filter(None, [self.fault(value, self._target(schema["$ref"]), depth)])
        yield from type_faults(value, schema)
        yield from self._combined(value, schema, depth)
        if isinstance(value, dict):
            yield from self._object(value, schema, depth)
        elif isinstance(value, list):
            yield from self._array(value, schema, depth)
        elif isinstance(value, str):
            yield from text_faults(value, schema)
        elif TYPES["number"](value):
            yield from number_faults(value, schema)

    def _combined(self, value: Any, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        for each in schema.get("allOf") or ():
            yield from filter(None, [self.fault(value, each, depth)])
        yield from self._alternatives(value, schema, depth)
        if "not" in schema and self.fault(value, schema["not"], depth) is None:
            yield "it matches the schema of `not`"
        if "if" in schema:
            branch = "then" if self.fault(value, schema["if"], depth) is None else "else"
            yield from filter(None, [self.fault(value, schema.get(branch, True), depth)])

    def _alternatives(self, value: Any, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        for name in ("anyOf", "oneOf"):
            if alternatives := schema.get(name):
                matches = sum(self.fault(value, each, depth) is None for each in alternatives)
                if matches == 0 or (name == "oneOf" and matches > 1):
                    yield f"it matches {matches} of the schemas of `{name}`"

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        for name in schema.get("required") or ():
            if name not in value:
                yield f"the property {name!r} is missing"
        yield from size_faults(len(value), schema, "Properties", "property", "properties")
        yield from self._properties(value, schema, depth)
        yield from self._dependents(value, schema, depth)

    def _properties(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        schemas = _PropertySchemas(schema)
        for key, part in value.items():
            for each in schemas.of(key):
                if (fault := self.fault(part, each, depth)) is not None:
                    yield f"`{key}`: {fault}"
            if "propertyNames" in schema and (fault := self.fault(key, schema["propertyNames"], depth)) is not None:
                yield f"the name {key!r}: {fault}"

    def _dependents(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        for key, names in (schema.get("dependentRequired") or {}).items():
            if key in value and (missing := [name for name in names if name not in value]):
                yield f"with {key!r}, the property {missing[0]!r} is missing"
        for key, each in (schema.get("dependentSchemas") or {}).items():
            if key in value:
                yield from filter(None, [self.fault(value, each, depth)])

    def _array(self, value: list[Any], schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        yield from size_faults(len(value), schema, "Items", "item")
        first, rest = _items(schema)
        for index, part in enumerate(value):
            if (fault := self.fault(part, first[index] if index < len(first) else rest, depth)) is not None:
                yield f"item {index}: {fault}"
        if schema.get("uniqueItems") is True and any(equal(*pair) for pair in combinations(value, 2)):
            yield "two items are equal"
        if "contains" in schema:
            count = sum(self.fault(part, schema["contains"], depth) is None for part in value)
            if not schema.get("minContains", 1) <= count <= schema.get("maxContains", count):
                yield f"`contains` matches {counted(count, 'item')}"


def _items(schema: Mapping[str, Any]) -> tuple[list[Schema], Schema]:
    """Return the schemas of the first items, and the schema of the others."""
    items = schema.get("items", True)
    if isinstance(items, list):  # before draft 2020-12
        return items, schema.get("additionalItems", True)
    return schema.get("prefixItems") or [], items


class _PropertySchemas:
    """Schemas of an object's properties, by their names."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._named = schema.get("properties") or {}
        self._others = schema.get("additionalProperties", True)
        found = (schema.get("patternProperties") or {}).items()
        self._by_pattern = [
            (regex, each) for pattern, each in found if (regex := patterns.compiled(pattern)) is not None
        ]

    def of(self, key: str) -> list[Schema]:
        named = [self._named[key]] if key in self._named else []
        matched = [each for regex, each in self._by_pattern if regex.search(key)]
        return named + matched or [self._others]
