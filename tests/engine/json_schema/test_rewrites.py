"""Conditionals, negations, alternatives, contained items and unevaluated properties, compared with jsonschema."""

import itertools
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import jsonschema
import pytest

from engine.constraint import GrammarError
from engine.json_schema.check import checked
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.json_schema.test_check import VOCABULARY
from tests.rows import thinned
from tests.support import conditional_schemas

SEEDS = range(200)


@pytest.fixture(scope="module")
def grammars() -> GrammarCompiler:
    return GrammarCompiler(VOCABULARY)


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    constraint = grammar.start()
    return all(map(constraint.try_accept, VOCABULARY.encode_bytes(text.encode()))) and constraint.accepting


def kind(name: str, **properties: Any) -> Any:
    return {"type": "object", "properties": {"kind": {"const": name}, **properties}, "required": ["kind"]}


TEXT, WHOLE, TRUTH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
OPTIONAL: Any = {"type": "object", "properties": dict.fromkeys("abc", WHOLE), "additionalProperties": False}
ADDRESS: Any = {
    "type": "object",
    "properties": {"country": {"enum": ["US", "NL", "FR"]}, "code": TEXT},
    "required": ["country", "code"],
}


def if_country(name: str, pattern: str, **otherwise: Any) -> Any:
    condition = {"properties": {"country": {"const": name}}, "required": ["country"]}
    return {"if": condition, "then": {"properties": {"code": {"pattern": pattern}}}, **otherwise}


# name -> schema, valid texts, invalid texts
CASES: dict[str, tuple[Any, list[str], list[str]]] = {
    "if: a constant, required": (
        ADDRESS | if_country("US", "^[0-9]{5}$", **{"else": {"properties": {"code": {"pattern": "^[A-Z]+$"}}}}),
        ['{"country": "US", "code": "12345"}', '{"country": "NL", "code": "AB"}'],
        ['{"country": "US", "code": "AB"}', '{"country": "NL", "code": "12345"}', '{"country": "DE", "code": "AB"}'],
    ),
    "if: a constant of a free text": (
        {"type": "object", "properties": {"a": TEXT, "b": WHOLE}, "required": ["a"]}
        | {"if": {"properties": {"a": {"const": "yes"}}}, "then": {"required": ["b"]}},
        ['{"a": "yes", "b": 1}', '{"a": "no"}', '{"a": "yess"}', '{"a": ""}', '{"a": "ye"}', '{"a": "Yes"}'],
        ['{"a": "yes"}', '{"a": 1}'],
    ),
    "if: a boolean flag": (
        {"type": "object", "properties": {"on": TRUTH, "n": WHOLE}}
        | {"if": {"properties": {"on": {"const": True}}, "required": ["on"]}, "then": {"required": ["n"]}},
        ['{"on": true, "n": 1}', '{"on": false}', "{}"],
        ['{"on": true}', '{"on": 1}'],
    ),
    "if: an optional property that is absent matches": (
        {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": WHOLE}}
        | {"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}},
        ['{"a": "x", "b": 1}', '{"a": "y"}', '{"b": 1}'],
        ["{}", '{"a": "x"}'],
    ),
    "if: required": (
        {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}},
        ['{"a": 1, "b": 2}', '{"c": 1}'],
        ['{"a": 1}', "{}", '{"b": 1}'],
    ),
    "if: a limit": (
        {"type": "object", "properties": {"n": WHOLE, "why": TEXT}, "required": ["n"]}
        | {"if": {"properties": {"n": {"minimum": 10}}}, "then": {"required": ["why"]}},
        ['{"n": 9}', '{"n": 10, "why": ""}'],
        ['{"n": 10}'],
    ),
    "if in a chain of else": (
        ADDRESS | if_country("US", "^1$", **{"else": if_country("NL", "^2$", **{"else": {"required": ["x"]}})}),
        ['{"country": "US", "code": "1"}', '{"country": "NL", "code": "2"}', '{"country": "FR", "code": "3", "x": 1}'],
        ['{"country": "US", "code": "2"}', '{"country": "NL", "code": "1"}', '{"country": "FR", "code": "3"}'],
    ),
    "if in allOf, for each country": (
        ADDRESS | {"allOf": [if_country("US", "^1$"), if_country("NL", "^2$"), if_country("DE", "^4$")]},
        ['{"country": "US", "code": "1"}', '{"country": "NL", "code": "2"}', '{"country": "FR", "code": "x"}'],
        ['{"country": "US", "code": "2"}', '{"country": "NL", "code": "1"}', '{"country": "DE", "code": "4"}'],
    ),
    "not: listed texts": (
        {"type": "string", "not": {"enum": ["root", "admin", ""]}},
        ['"user"', '"roo"', '"roots"', '"adm"'],
        ['"root"', '"admin"', '""'],
    ),
    "not: a number": ({"type": "integer", "not": {"const": 0}}, ["1", "-3", "10"], ["0"]),
    "not: a limit": ({"type": "number", "not": {"minimum": 3}}, ["2.5", "-1"], ["3", "4"]),
    "not: any of": (
        {"type": "object", "not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
        ['{"c": 1}', "{}"],
        ['{"a": 1}', '{"b": 1}'],
    ),
    "not: an object": (
        {"type": "object", "properties": {"a": TEXT}, "not": {"properties": {"a": {"const": "x"}}, "required": ["a"]}},
        ['{"a": "y"}', "{}"],
        ['{"a": "x"}'],
    ),
    "oneOf of overlapping ranges": (
        {"type": "number", "oneOf": [{"maximum": 2}, {"maximum": 5}]}, ["3", "5"], ["2", "6"],
    ),
    "oneOf of a text and any text": (
        {"oneOf": [{"enum": ["linux"]}, TEXT]}, ['"windows"', '"linu"', '""'], ['"linux"', "1"],
    ),
    "oneOf of closed objects without required properties": (
        {"oneOf": [{"type": "object", "properties": {name: TRUTH}, "additionalProperties": False} for name in "ab"]},
        ['{"a": true}', '{"b": false}'],
        ["{}", '{"a": true, "b": true}', '{"a": 1}'],
    ),
    "oneOf of a result and an error": (
        {"oneOf": [{"type": "object", "properties": {n: kind("x")}, "required": [n]} for n in ("ok", "error")]},
        ['{"ok": {"kind": "x"}}', '{"error": {"kind": "x"}}'],
        ["{}", '{"ok": {"kind": "x"}, "error": {"kind": "x"}}', '{"ok": 1}'],
    ),
    "oneOf in oneOf": (
        {"type": "object", "oneOf": [{"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"required": ["c"]}]},
        ['{"a": 1}', '{"c": 1}', '{"c": 1, "a": 1, "b": 1}'],
        ["{}", '{"a": 1, "b": 1}', '{"c": 1, "a": 1}'],
    ),
    "contains": (
        {"type": "array", "items": TEXT, "contains": {"const": "x"}},
        ['["x"]', '["a", "x"]', '["x", "x", "b"]'],
        ["[]", '["a"]', '["x", 1]'],
    ),
    "contains: at least two of three": (
        {"type": "array", "contains": WHOLE, "minContains": 2, "maxItems": 3},
        ["[1, 2]", '["a", 1, 2]'],
        ["[1]", '["a", 1]'],
    ),
    "contains: at most one": (
        {"type": "array", "items": {"enum": ["x", "y"]}, "contains": {"const": "x"}, "maxContains": 1},
        ['["x"]', '["y", "x", "y"]'],
        ["[]", '["x", "x"]'],
    ),
    "contains: none or more": ({"type": "array", "contains": WHOLE, "minContains": 0}, ["[]", '["a"]'], ["1"]),
    "unevaluatedProperties": (
        {"type": "object", "properties": {"a": WHOLE}, "unevaluatedProperties": False}, ['{"a": 1}'], ['{"b": 1}'],
    ),
    "unevaluatedProperties beside a reference": (
        {"$ref": "#/$defs/a", "properties": {"b": TEXT}, "unevaluatedProperties": False, "$defs": {"a": kind("a")}},
        ['{"kind": "a", "b": ""}'],
        ['{"kind": "a", "b": "", "c": 1}', "{}"],
    ),
    "unevaluatedProperties beside allOf": (
        {"allOf": [kind("a"), {"properties": {"b": TEXT}, "required": ["b"]}], "unevaluatedProperties": False},
        ['{"kind": "a", "b": ""}'],
        ['{"kind": "a", "b": "", "c": 1}', '{"kind": "a"}'],
    ),
    "unevaluatedProperties beside oneOf": (
        {"type": "object", "oneOf": [kind("a", n=WHOLE), kind("b", t=TEXT)], "unevaluatedProperties": False},
        ['{"kind": "a", "n": 1}', '{"kind": "b", "t": ""}'],
        ['{"kind": "a", "t": ""}', '{"kind": "b", "n": 1}', '{"kind": "a", "x": 1}'],
    ),
    "unevaluatedProperties beside if": (
        kind("a", b=WHOLE)
        | {"if": {"required": ["b"]}, "then": {"properties": {"c": TEXT}}, "unevaluatedProperties": False},
        ['{"kind": "a", "b": 1, "c": ""}', '{"kind": "a"}'],
        ['{"kind": "a", "c": ""}', '{"kind": "a", "d": 1}'],
    ),
    "unevaluatedItems": (
        {"type": "array", "allOf": [{"prefixItems": [WHOLE]}], "unevaluatedItems": False}, ["[1]", "[]"], ["[1, 2]"],
    ),
    "minProperties of optional ones": (
        OPTIONAL | {"minProperties": 2},
        ['{"a": 1, "c": 1}', '{"b": 1, "c": 1}', '{"a": 1, "b": 1, "c": 1}'],
        ["{}", '{"a": 1}'],
    ),
    "maxProperties of optional ones": (
        OPTIONAL | {"maxProperties": 1},
        ["{}", '{"a": 1}', '{"c": 1}'],
        ['{"a": 1, "c": 1}'],
    ),
    "minProperties beside other properties": (
        {"type": "object", "properties": {"a": WHOLE}, "minProperties": 1},
        ['{"a": 1}', '{"x": ""}'],
        ["{}", '{"a": ""}'],
    ),
    "a type beside recursive alternatives": (
        {
            "$ref": "#/$defs/tree",
            "$defs": {
                "tree": {"type": "object", "anyOf": [{"$ref": "#/$defs/leaf"}, {"$ref": "#/$defs/pair"}]},
                "leaf": kind("leaf"),
                "pair": kind("pair", left={"$ref": "#/$defs/tree"}, right={"$ref": "#/$defs/tree"}),
            },
        },
        ['{"kind": "leaf"}', '{"kind": "pair", "left": {"kind": "leaf"}}'],
        ['{"kind": "pair", "left": {}}', '{"kind": "x"}', "1"],
    ),
    "format: regex": (
        {"type": "string", "format": "regex"},
        ['""', r'"^a+(b|[^c-e])\\d{2,}$"', '"(?:a(b(c)))*?"', r'"(?=.*x)\\bé"'],
        ['"("', '"a)"', '"[z-a]"', '"*a"', '"a**"', r'"\\"', '"a{2,1}"'],
    ),
    "format: uri": (
        {"type": "string", "format": "uri"},
        ['"http://u:p@a.b:80/c/d?x=1#f"', '"mailto:a@b.c"', '"urn:x:1"', '"http://[::1]/"', '"http://[::ffff:1.2.3.4]"'],
        ['"1:a"', '"//a"', '"http://a b"', '"http://a/%zz"', '"http://[1:2:3]/"', '"http://[:::]"', '"http://a/{b}"'],
    ),
    "format: email": (
        {"type": "string", "format": "email"},
        ['"a.b+c@d-e.f"', '"a@[1.2.3.4]"', '"a@b"'],
        ['"a..b@c"', '"@b"', '"a@"', '"a@-b"', '"a@[1.2.3.256]"', '"a b@c"'],
    ),
    "format: uri-template": (
        {"type": "string", "format": "uri-template"},
        ['""', '"http://a.b/{term:1}/{+x.y*,z}{?q}"', '"/a%20b"'],
        ['"{"', '"}"', '"{}"', '"a b"', '"{x:}"', '"{x:10000}"'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", thinned({case: case for case in CASES}))
def test_json_schema_with_rewritten_keyword_accepts_valid_texts_only(case: str, grammars: GrammarCompiler) -> None:
    schema, valid, invalid = CASES[case]
    grammar = grammars.json_schema(schema)
    assert [text for text in valid if not accepts(grammar, text)] == []
    assert [text for text in invalid if accepts(grammar, text)] == []
    validator = jsonschema.Draft202012Validator(schema)
    assert all(validator.is_valid(json.loads(text)) for text in valid)
    assert "format" in schema or not any(validator.is_valid(json.loads(text)) for text in invalid)


def orders(value: Any) -> Iterator[Any]:
    """Yield the value with its properties in each order: an enforced object has its properties in one order."""
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for inner in itertools.product(*(list(orders(value[name])) for name in names)):
                yield dict(zip(names, inner, strict=True))
    elif isinstance(value, list):
        yield from map(list, itertools.product(*(list(orders(inner)) for inner in value)))
    else:
        yield value


@pytest.mark.slow
def test_json_schema_with_200_random_conditions_accepts_no_invalid_value(grammars: GrammarCompiler) -> None:
    admitted, n_valid, n_accepted = [], 0, 0
    for seed in SEEDS:
        schema, random = conditional_schemas.schema(seed), Random(seed)
        validator = jsonschema.Draft202012Validator(schema)
        try:
            grammar = grammars.json_schema(schema)
        except GrammarError:
            continue
        for value in (conditional_schemas.instance(random, 2) for _ in range(20)):
            texts = map(json.dumps, itertools.islice(orders(value), 100))
            if validator.is_valid(value):
                n_valid += 1
                n_accepted += any(accepts(grammar, text) for text in texts)
            elif accepts(grammar, json.dumps(value)):
                admitted.append((seed, value))
    assert admitted == []
    assert n_accepted > 0.95 * n_valid > 500


@pytest.mark.slow
def test_schema_whose_alternatives_multiply_is_refused_or_relaxed(grammars: GrammarCompiler) -> None:
    schema: Any = {"required": ["a"]}
    for n in range(12):
        schema = {"type": "object", "oneOf": [schema, {"required": [f"b{n}"]}, {"required": [f"c{n}"]}]}
    with pytest.raises(GrammarError, match="its alternatives are too many"):
        checked(schema)
    whole: Any = {"type": "object", "properties": {"a": schema, "b": TEXT}, "required": ["b"]}
    relaxed = grammars.relaxed(whole)
    assert all(place.startswith("properties.a.oneOf") for place in relaxed.unenforced)
    grammar = grammars.json_schema(relaxed.schema)
    texts = ['{"a": {"c11": 1}, "b": ""}', '{"a": 1, "b": ""}', '{"a": {}}', '{"b": 1}']
    assert [accepts(grammar, text) for text in texts] == [True, False, False, False]


def test_conditions_on_one_value_become_one_case() -> None:
    kinds: Any = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}, "required": ["kind"]}
    on_a = [{"if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": [name]}} for name in "xy"]
    schema = checked(kinds | {"allOf": on_a}).schema
    assert isinstance(schema, dict)
    assert schema["allOf"] == [
        {
            "anyOf": [
                {
                    "properties": {"kind": {"const": "a"}},
                    "required": ["kind"],
                    "allOf": [*({"required": [n]} for n in "xy")],
                },
                {"properties": {"kind": {"enum": ["b"]}}, "required": ["kind"], "allOf": []},
            ]
        }
    ]


@pytest.mark.parametrize(
    "limits", [{"maxContains": 10**9}, {"minContains": 10**9}, {"minContains": 1, "maxContains": 10**9}]
)
def test_contains_with_huge_limits_becomes_few_lists(limits: dict[str, int]) -> None:
    whole: Any = {"type": "array", "contains": TEXT, **limits}
    assert len(json.dumps(checked(whole).schema)) < 100_000
