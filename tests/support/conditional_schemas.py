"""JSON schemas with conditions, negations and alternatives, and values for them, made from a seed."""

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

Schema: TypeAlias = Any

NAMES = ("a", "b", "c")
SCALARS = ("x", "y", "z", "xy", "", 1, 2, 3, 0, 1.5, True, False, None)


def schema(seed: int) -> Schema:
    return _combined(Random(seed), 2)


def instance(random: Random, depth: int) -> Any:
    draw = random.random()
    if depth <= 0 or draw < 0.3:
        return random.choice(SCALARS)
    if draw < 0.85:
        names = random.sample((*NAMES, "d"), random.randint(0, 3))
        return {name: instance(random, depth - 1) for name in names}
    return [instance(random, 0) for _ in range(random.randint(0, 3))]


def _leaf(random: Random) -> Schema:
    return random.choice(
        (
            {"const": random.choice(("x", "y", 1, True, None, "xy"))},
            {"enum": random.sample(("x", "y", "z", 1, 2, True, None, "xy", ""), random.randint(1, 3))},
            {"type": "string"},
            {"type": "string", "maxLength": random.randint(0, 2)},
            {"minLength": 2},
            {"type": "integer", "minimum": random.randint(0, 3)},
            {"maximum": 2},
            {"type": ["string", "null"]},
            {"type": "number", "exclusiveMaximum": 2},
            True,
            {"type": "boolean"},
        )
    )


def _object(random: Random, depth: int) -> Schema:
    names = random.sample(NAMES, random.randint(1, 3))
    made: Schema = {"properties": {name: _any(random, depth - 1) for name in names}}
    for chance, added in (
        (0.7, {"type": "object"}),
        (0.6, {"required": random.sample(NAMES, random.randint(1, 2))}),
        (0.3, {"additionalProperties": False}),
        (0.1, {"unevaluatedProperties": False}),
        (0.1, {"minProperties": random.randint(1, 2)}),
        (0.1, {"maxProperties": random.randint(1, 3)}),
    ):
        made |= added if random.random() < chance else {}
    return made


def _array(random: Random) -> Schema:
    made: Schema = {"type": "array"}
    for chance, added in (
        (0.6, {"items": _leaf(random)}),
        (0.4, {"maxItems": random.randint(1, 3)}),
        (0.7, {"contains": _leaf(random)}),
        (0.3, {"minContains": random.randint(0, 2)}),
        (0.3, {"maxContains": random.randint(1, 2)}),
        (0.2, {"prefixItems": [_leaf(random)]}),
        (0.1, {"unevaluatedItems": False}),
    ):
        made |= added if random.random() < chance else {}
    return made


def _any(random: Random, depth: int) -> Schema:
    match random.randrange(4) if depth > 0 else 0:
        case 1:
            return _object(random, depth)
        case 2:
            return _combined(random, depth)
        case 3:
            return _array(random)
    return _leaf(random)


def _part(random: Random) -> Schema:
    match random.randrange(4):
        case 0:
            return {"required": random.sample(NAMES, random.randint(1, 2))}
        case 1:
            return {"properties": {random.choice(NAMES): _leaf(random)}}
        case 2:
            return {"properties": {random.choice(NAMES): _leaf(random)}, "required": [random.choice(NAMES)]}
    return _object(random, 0)


def _combined(random: Random, depth: int) -> Schema:
    made = _object(random, depth) if random.random() < 0.7 else {"type": "object"}
    return {**made, **random.choice(_COMBINATIONS)(random)}


def _conditions(random: Random) -> Schema:
    name = random.choice(NAMES)
    parts = []
    for value in random.sample(("x", "y", 1, True), random.randint(2, 3)):
        condition: Schema = {"properties": {name: random.choice(({"const": value}, {"enum": [value, "z"]}))}}
        condition |= {"required": [name]} if random.random() < 0.7 else {}
        parts.append({"if": condition, "then": _part(random)})
    return {"allOf": parts}


_COMBINATIONS: list[Callable[[Random], Schema]] = [
    lambda random: {"if": _part(random), "then": _part(random)},
    lambda random: {"if": _part(random), "then": _part(random), "else": _part(random)},
    lambda random: {"not": _part(random)},
    lambda random: {"oneOf": [_part(random) for _ in range(random.randint(2, 3))]},
    lambda random: {"anyOf": [_part(random), _part(random)]},
    lambda random: {"allOf": [_part(random), _part(random)]},
    lambda random: {"dependentSchemas": {random.choice(NAMES): _part(random)}},
    _conditions,
]
