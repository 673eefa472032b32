"""JSON schemas of many kinds, made up from a seed, and the file of real ones."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

REAL_SCHEMAS = Path(__file__).parents[3] / "shared" / "schemas" / "real-schemas.jsonl"
"""Schemas of real tools, which lie beside a checkout or not."""

WORDS = ("name", "city", "temperature", "größe", "a b", "id", "unit", 'q"uote', "items", "x", "日本")
PATTERNS = (
    "^[a-z]{2,5}$",
    "^[A-Z][a-z]+( [A-Z][a-z]+)?$",
    r"^\d{3}-\d{4}$",
    "^(yes|no|maybe)$",
    "ab+c",
    "^#[0-9a-f]{6}$",
)
FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "duration", "hostname", "uri")


def schema(seed: int) -> Schema:
    """An object, as clients ask for; some with definitions, some that go on in themselves."""
    random = Random(seed)
    made = _object(random, 3)
    if random.random() < 0.3:
        made["$defs"] = {"thing": _any(random, 1), "tree": _tree(random)}
        made["properties"] |= {"thing": {"$ref": "#/$defs/thing"}, "tree": {"$ref": "#/$defs/tree"}}
    return made


def _any(random: Random, depth: int) -> Schema:
    kinds = [*_LEAVES, *_NESTS] if depth > 0 else _LEAVES
    return random.choice(kinds)(random, depth)


def _object(random: Random, depth: int) -> Schema:
    names = random.sample(WORDS, random.randint(1, 4))
    made: Schema = {"type": "object", "properties": {name: _any(random, depth - 1) for name in names}}
    made["required"] = [name for name in names if random.random() < 0.7]
    match random.randrange(4):
        case 0 | 1:
            made["additionalProperties"] = False
        case 2:
            made["additionalProperties"] = _any(random, 0)
    return made


def _map(random: Random, depth: int) -> Schema:
    made: Schema = {"type": "object", "minProperties": random.randint(0, 1), "maxProperties": random.randint(1, 3)}
    if random.random() < 0.5:
        return made | {"patternProperties": {"^[a-z]{1,4}$": _any(random, 0)}, "additionalProperties": False}
    return made | {"additionalProperties": _any(random, depth - 1)}


def _array(random: Random, depth: int) -> Schema:
    least = random.randint(0, 2)
    made: Schema = {"type": "array", "items": _any(random, depth - 1), "minItems": least}
    return made | {"maxItems": least + random.randint(0, 2)}


def _tuple(random: Random, depth: int) -> Schema:
    firsts = [_any(random, 0) for _ in range(random.randint(1, 3))]
    return {"type": "array", "prefixItems": firsts, "items": False, "minItems": random.randint(0, len(firsts))}


def _union(random: Random, depth: int) -> Schema:
    return {"anyOf": [_any(random, depth - 1) for _ in range(random.randint(2, 3))]}


def _tagged(random: Random, depth: int) -> Schema:
    """As pydantic writes discriminated unions."""
    kinds = [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, "value": _any(random, 0)},
            "required": ["kind", "value"],
            "additionalProperties": False,
        }
        for kind in ("one", "two", "three")
    ]
    return {"oneOf": kinds}


def _both(random: Random, depth: int) -> Schema:
    first, second = random.sample(WORDS, 2)
    parts: list[Schema] = [{"type": "object", "properties": {first: _any(random, 0)}, "required": [first]}]
    return {"allOf": [*parts, {"properties": {second: {"type": "boolean"}}, "required": [second]}]}


def _tree(random: Random) -> Schema:
    leaf = _any(random, 0)
    branches = {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}
    made = {"type": "object", "properties": {"leaf": leaf, "branches": branches}, "required": ["leaf"]}
    return made | {"additionalProperties": False}


def _text(random: Random, depth: int) -> Schema:
    made: Schema = {"type": "string"}
    if random.random() < 0.5:
        made["minLength"] = random.randint(0, 5)
        made["maxLength"] = made["minLength"] + random.randint(0, 20)
    return made


def _patterned(random: Random, depth: int) -> Schema:
    return {"type": "string", "pattern": random.choice(PATTERNS)}


def _formatted(random: Random, depth: int) -> Schema:
    return {"type": "string", "format": random.choice(FORMATS)}


def _integer(random: Random, depth: int) -> Schema:
    low = random.randint(-1000, 1000)
    least, most = random.choice(("minimum", "exclusiveMinimum")), random.choice(("maximum", "exclusiveMaximum"))
    bounds = {least: low, most: low + random.randint(20, 500)}
    made: Schema = {"type": "integer"} | {k: v for k, v in bounds.items() if random.random() < 0.6}
    return made | ({"multipleOf": random.choice((2, 3, 5, 7, 10))} if random.random() < 0.2 else {})


def _number(random: Random, depth: int) -> Schema:
    low = round(random.uniform(-100, 100), 2)
    bounds = {"minimum": low, "exclusiveMaximum": low + random.randint(1, 100)}
    return {"type": "number"} | {k: v for k, v in bounds.items() if random.random() < 0.6}


def _choice(random: Random, depth: int) -> Schema:
    values = [*random.sample(WORDS, 3), random.randint(-5, 5), None, True, 1.5, {"x": [1]}, "\n\t\\"]
    return {"enum": random.sample(values, random.randint(1, len(values)))}


def _constant(random: Random, depth: int) -> Schema:
    return {"const": random.choice((*WORDS, 7, -0.5, None, False, [1, "a"]))}


def _simple(random: Random, depth: int) -> Schema:
    return {"type": random.choice(("boolean", "null", ["string", "null"], ["integer", "boolean"]))}


_LEAVES: list[Callable[[Random, int], Schema]] = [
    *(_text, _patterned, _formatted, _integer, _number, _choice, _constant, _simple)
]
_NESTS: list[Callable[[Random, int], Schema]] = [_object, _map, _array, _tuple, _union, _tagged, _both]
