"""Which keyword of a schema a compiler refuses, found by trying its parts. Pure.

llguidance names no place, and finds some faults only when all keywords come together.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from engine.constraint import GrammarError
from engine.json_schema.check import CheckedSchema
from engine.json_schema.values import JSON, Schema

Refusal: TypeAlias = Callable[[JSON], GrammarError | None]
"""Compile a schema; None where that works."""
Path: TypeAlias = tuple[str | int, ...]

MOST_FAULTS = 64
"""Keywords of one schema that are left out; what has more is left out whole."""
_MAPS = ("properties", "patternProperties", "$defs")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_LAST = ("type", "properties", "required")
"""Keywords that are left out only when nothing else helps."""


def relaxed(accepted: CheckedSchema, refusal: Refusal) -> CheckedSchema:
    """Leave out each keyword that the compiler refuses, and name it."""
    schema, unenforced = accepted.schema, list(accepted.unenforced)
    for _ in range(MOST_FAULTS):
        if refusal(schema) is None:
            return CheckedSchema(schema, accepted.places, tuple(dict.fromkeys(unenforced)))
        path = _fault(schema, refusal)
        unenforced.append(_place(path, accepted))
        schema = _left_out(schema, path)
    return CheckedSchema({}, accepted.places, ("",))


def place_of(accepted: CheckedSchema, refusal: Refusal) -> str:
    """Name the place of the keyword that the compiler refuses."""
    return _place(_fault(accepted.schema, refusal), accepted)


def _fault(schema: JSON, refusal: Refusal) -> Path:
    """Return the path to the keyword, or to the schema where no single keyword is at fault."""
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    path: Path = ()
    found = schema
    seen: set[Path] = set()
    while path not in seen:
        seen.add(path)
        target = _target(found)
        if target and isinstance(definitions, dict) and _refused(definitions[target], definitions, refusal):
            path, found = ("$defs", target), definitions[target]
            continue
        for step, inner in _inner(found):
            if _refused(inner, definitions, refusal):
                path, found = (*path, *step), inner
                break
        else:
            break
    if not isinstance(found, dict):
        return path
    keys = [key for key in found if key not in ("$defs", *_LAST)]
    for key in [*keys, *(key for key in _LAST if key in found)]:
        less = {**_left_out_key(found, key), **({"$defs": definitions} if definitions else {})}
        if refusal(less) is None:
            return (*path, key)
    return path


def _refused(schema: JSON, definitions: JSON, refusal: Refusal) -> bool:
    if not isinstance(schema, dict):
        return False
    return refusal({**schema, "$defs": definitions} if definitions else schema) is not None


def _target(schema: JSON) -> str:
    """Return the name of the definition to which a schema refers; empty where there is none."""
    target = schema.get("$ref") if isinstance(schema, dict) else None
    return target.removeprefix("#/$defs/") if isinstance(target, str) and target != "#" else ""


def skeleton(schema: JSON) -> JSON:
    """Leave the properties, the types and the required keys of a schema that is too large."""
    if not isinstance(schema, dict):
        return schema
    bare: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "$defs") and isinstance(value, dict):
            bare[key] = {name: skeleton(inner) for name, inner in value.items()}
        elif key in ("items", "additionalProperties"):
            bare[key] = skeleton(value)
        elif key == "anyOf" and isinstance(value, list):
            bare[key] = [skeleton(inner) for inner in value]
        elif key in ("type", "required", "$ref"):
            bare[key] = value
    return bare


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


def _left_out(schema: JSON, path: Path) -> JSON:
    if not path:
        return {"$defs": schema["$defs"]} if isinstance(schema, dict) and "$defs" in schema else {}
    step, rest = path[0], path[1:]
    if isinstance(schema, list) and isinstance(step, int):
        return [*schema[:step], _left_out(schema[step], rest), *schema[step + 1 :]]
    if not isinstance(schema, dict):
        return {}
    key = str(step)
    if rest:
        return {**schema, key: _left_out(schema[key], rest)}
    if key in _MAPS or isinstance(schema[key], list | bool | int | float | str) or key in _KEYWORDS:
        return _left_out_key(schema, key)
    return {**schema, key: {}}


_KEYWORDS = frozenset(("const", "items", "additionalProperties", *_LISTS))


def _left_out_key(schema: Schema, key: str) -> Schema:
    """Without a keyword; a `oneOf` becomes an `anyOf` where that is not taken."""
    less = {name: value for name, value in schema.items() if name != key}
    return {**less, "anyOf": schema[key]} if key == "oneOf" and "anyOf" not in schema else less


def _place(path: Path, accepted: CheckedSchema) -> str:
    if path[:1] == ("$defs",) and len(path) > 1:
        place, path = accepted.places.get(str(path[1]), ""), path[2:]
    else:
        place = ""
    for step in path:
        place = f"{place}[{step}]" if isinstance(step, int) else f"{place}.{step}" if place else step
    return place
