"""Find the keyword of a schema that the compiler rejects, by compiling its parts. Pure.

llguidance names no place, and finds some faults only in the combination of all keywords.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TypeAlias

from engine.constraint import GrammarError
from engine.json_schema.check import CheckedSchema, original_place
from engine.json_schema.values import JSON, Schema

TryCompile: TypeAlias = Callable[[JSON], GrammarError | None]
"""Compiles a schema and returns the error, or None on success."""
Path: TypeAlias = tuple[str | int, ...]

MAX_FAULTS = 64
"""Keywords of one schema that can be left out. A schema with more faults is left out whole."""
_MAPS = ("properties", "patternProperties", "$defs")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_LAST = ("type", "properties", "required")
"""Keywords that are left out only if no other one is at fault."""
AROUND = (*_LAST, "$defs", *_SINGLES)
"""Keywords around parts of a schema."""


def relaxed(checked: CheckedSchema, try_compile: TryCompile, innocent: Container[str] = ()) -> CheckedSchema:
    """Return the schema without the keywords that the compiler rejects, and with their places.

    Keywords that are `innocent` stay: if no other one is at fault, the schema that has them is left out whole.
    """
    schema, unenforced = checked.schema, list(checked.unenforced)
    for _ in range(MAX_FAULTS):
        if try_compile(schema) is None:
            return CheckedSchema(schema, checked.places, tuple(dict.fromkeys(unenforced)), checked.origins)
        path = _fault(schema, try_compile, innocent)
        unenforced.append(_place(path, checked))
        schema = _without(schema, path)
    return CheckedSchema({}, checked.places, ("",))


def place_of(checked: CheckedSchema, try_compile: TryCompile, innocent: Container[str] = ()) -> str:
    """Return the place of the keyword that the compiler rejects; see `relaxed`."""
    return _place(_fault(checked.schema, try_compile, innocent), checked)


def _fault(schema: JSON, try_compile: TryCompile, innocent: Container[str]) -> Path:
    """Return the path to the faulty keyword, or to the schema if no single keyword is at fault."""
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    path, part = _rejected_part(schema, definitions, try_compile)
    if not isinstance(part, dict):
        return path
    for key in _suspects(part, innocent):
        less = {**_without_key(part, key), **({"$defs": definitions} if definitions else {})}
        if try_compile(less) is None:
            return (*path, key)
    return path


def _rejected_part(schema: JSON, definitions: JSON, try_compile: TryCompile) -> tuple[Path, JSON]:
    """Return path and schema of a part that the compiler rejects, although it accepts each schema inside the part."""
    path: Path = ()
    seen: set[Path] = set()
    while path not in seen:
        seen.add(path)
        for inner_path, inner in _parts(path, schema, definitions):
            if _is_rejected(inner, definitions, try_compile):
                path, schema = inner_path, inner
                break
    return path, schema


def _parts(path: Path, schema: JSON, definitions: JSON) -> Iterator[tuple[Path, JSON]]:
    """Yield path and schema of the definition that a schema refers to, then of the schemas inside it."""
    target = _target(schema)
    if target and isinstance(definitions, dict):
        yield ("$defs", target), definitions[target]
    for step, inner in _inner(schema):
        yield (*path, *step), inner


def _suspects(schema: Schema, innocent: Container[str]) -> list[str]:
    """Return the keywords that may be at fault, in the order in which they are left out."""
    keys = [key for key in schema if key != "$defs" and key not in innocent]
    return sorted(keys, key=lambda key: _LAST.index(key) + 1 if key in _LAST else 0)


def _is_rejected(schema: JSON, definitions: JSON, try_compile: TryCompile) -> bool:
    if not isinstance(schema, dict):
        return False
    return try_compile({**schema, "$defs": definitions} if definitions else schema) is not None


def _target(schema: JSON) -> str:
    """Return the name of the definition that a schema refers to; empty if it refers to none."""
    target = schema.get("$ref") if isinstance(schema, dict) else None
    return target.removeprefix("#/$defs/") if isinstance(target, str) and target != "#" else ""


_SKELETON: Mapping[str, type] = {
    **dict.fromkeys(("type", "required", "$ref", "items", "additionalProperties"), object),
    **dict.fromkeys(("properties", "$defs"), dict),
    "anyOf": list,
}
"""Keywords of a skeleton, and the Python type of their values."""


def skeleton(schema: JSON) -> JSON:
    """Reduce a schema that is too large to its properties, types and required keys."""
    if not isinstance(schema, dict):
        return schema
    return {key: _bare(key, value) for key, value in schema.items() if isinstance(value, _SKELETON.get(key, ()))}


def _bare(key: str, value: JSON) -> JSON:
    if key in _SINGLES:
        return skeleton(value)
    if key in _LISTS and isinstance(value, list):
        return [skeleton(inner) for inner in value]
    if key in _MAPS and isinstance(value, dict):
        return {name: skeleton(inner) for name, inner in value.items()}
    return value


def _inner(schema: JSON) -> Iterator[tuple[Path, JSON]]:
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            yield from (((key, name), each) for name, each in value.items())
        elif key in _LISTS and isinstance(value, list):
            yield from (((key, n), each) for n, each in enumerate(value))
        elif key in _SINGLES:
            yield (key,), value


def _without(schema: JSON, path: Path) -> JSON:
    if not path:
        return {"$defs": schema["$defs"]} if isinstance(schema, dict) and "$defs" in schema else {}
    step, rest = path[0], path[1:]
    if isinstance(schema, list) and isinstance(step, int):
        return [*schema[:step], _without(schema[step], rest), *schema[step + 1 :]]
    if not isinstance(schema, dict):
        return {}
    key = str(step)
    if rest:
        return {**schema, key: _without(schema[key], rest)}
    return _without_key(schema, key) if _is_keyword(key, schema[key]) else {**schema, key: {}}


def _is_keyword(key: str, value: JSON) -> bool:
    """True if an entry at the end of a path is a keyword; false if it is a property or a definition."""
    return key in _KEYWORDS or isinstance(value, list | bool | int | float | str)


_KEYWORDS = frozenset(("const", *_MAPS, *_LISTS, *_SINGLES))


def _without_key(schema: Schema, key: str) -> Schema:
    """Return the schema without a keyword; a `oneOf` becomes an `anyOf` if the schema has none."""
    less = {name: value for name, value in schema.items() if name != key}
    return {**less, "anyOf": schema[key]} if key == "oneOf" and "anyOf" not in schema else less


def _place(path: Path, checked: CheckedSchema) -> str:
    if path[:1] == ("$defs",) and len(path) > 1:
        place, path = checked.places.get(str(path[1]), ""), path[2:]
    else:
        place = ""
    for step in path:
        place = f"{place}[{step}]" if isinstance(step, int) else f"{place}.{step}" if place else step
    return original_place(place, checked.origins)
