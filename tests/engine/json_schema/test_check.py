"""Keywords that are rewritten, relaxed, or rejected with their place, and schemas of real tools."""

import json
from typing import Any

import jsonschema
import pytest

from engine.backends import scripted
from engine.constraint import GrammarError
from engine.structured_output.compiler import GrammarCompiler
from tests.support.schemas import REAL_SCHEMAS

MAX_REJECTED = 65
"""Rejected schemas of the thousand in that file."""
VOCABULARY = scripted.vocabulary()


@pytest.fixture(scope="module")
def grammars() -> GrammarCompiler:
    return GrammarCompiler(VOCABULARY)


def accepts(grammars: GrammarCompiler, schema: Any, text: str) -> bool:
    constraint = grammars.json_schema(schema).start()
    return all(map(constraint.try_accept, VOCABULARY.encode_bytes(text.encode()))) and constraint.accepting


A, B = ({"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]} for name in "ab")
UNION = {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "$defs": {"A": A, "B": B}}
NAMES = {"type": "object", "additionalProperties": {"type": "integer"}}

# name -> schema, valid texts, invalid texts
CASES: dict[str, tuple[Any, list[str], list[str]]] = {
    "propertyNames: string": (NAMES | {"propertyNames": {"type": "string"}}, ['{"x": 1}'], ['{"x": "a"}']),
    "propertyNames: pattern": (NAMES | {"propertyNames": {"pattern": "^a"}}, ['{"ax": 1}', "{}"], ['{"x": 1}']),
    "propertyNames: enum": (NAMES | {"propertyNames": {"enum": ["a", "b"]}}, ['{"a": 1}', '{"b": 1}'], ['{"x": 1}']),
    "propertyNames: lengths": (NAMES | {"propertyNames": {"maxLength": 2}}, ['{"ab": 1}'], ['{"abc": 1}']),
    "propertyNames forbids a property": (
        {"type": "object", "properties": {"b": {}, "ab": {"type": "null"}}, "propertyNames": {"pattern": "^a"}},
        ['{"ab": null}', '{"ac": 1}'],
        ['{"b": 1}', '{"ab": 1}'],
    ),
    "dependentRequired: empty": (NAMES | {"dependentRequired": {"a": []}}, ['{"a": 1}'], ['{"a": "x"}']),
    "dependentRequired": (NAMES | {"dependentRequired": {"a": ["b"]}}, ['{"a": 1, "b": 2}', '{"b": 1}'], ['{"a": 1}']),
    "dependentRequired of a property with an annotation's name": (
        NAMES | {"dependentRequired": {"title": ["b"]}}, ['{"title": 1, "b": 2}', '{"b": 1}'], ['{"title": 1}'],
    ),
    "dependentSchemas": (
        {"type": "object", "dependentSchemas": {"a": {"properties": {"b": {"type": "null"}}, "required": ["b"]}}},
        ['{"a": 1, "b": null}', '{"b": 1}'],
        ['{"a": 1}', '{"a": 1, "b": 1}'],
    ),
    "dependencies": ({"type": "object", "dependencies": {"a": ["b"]}}, ['{"a": 1, "b": 2}'], ['{"a": 1}']),
    "not: false": ({"type": "null", "not": False}, ["null"], ["1"]),
    "not: everything": ({"type": "object", "properties": {"a": {"not": {}}}}, ["{}", '{"b": 1}'], ['{"a": 1}']),
    "not: a type": ({"type": ["string", "null"], "not": {"type": "null"}}, ['"x"'], ["null"]),
    "not: values": ({"enum": ["a", "b"], "not": {"const": "a"}}, ['"b"'], ['"a"']),
    "not: required": ({"type": "object", "not": {"required": ["a"]}}, ['{"b": 1}'], ['{"a": 1}']),
    "if alone": ({"type": "integer", "if": {"minimum": 3}}, ["1", "5"], ["true"]),
    "then alone": ({"type": "integer", "then": False, "else": False}, ["1"], ["true"]),
    "unevaluatedProperties: true": (NAMES | {"unevaluatedProperties": True}, ['{"a": 1}'], ['{"a": "x"}']),
    "$anchor that nothing uses": ({"type": "null", "$anchor": "here"}, ["null"], ["1"]),
    "$anchor": ({"$ref": "#here", "$defs": {"n": {"$anchor": "here", "type": "null"}}}, ["null"], ["1"]),
    "format of a number beside null": ({"type": ["integer", "null"], "format": "uint32"}, ["7", "null"], ["1.5"]),
    "format of a number": ({"type": "number", "format": "double"}, ["7.5"], ["null"]),
    "format of text on a number": ({"type": "integer", "format": "date"}, ["7"], ['"2024-01-01"']),
    "unknown format": ({"type": "string", "format": "password"}, ['"x"'], ["1"]),
    "unknown format beside a pattern": ({"type": "string", "format": "e164", "pattern": "^x$"}, ['"x"'], ['"y"']),
    "json-pointer": ({"type": "string", "format": "json-pointer"}, ['"/a/~0b"', '""'], ['"a"', '"/~2"']),
    "uri-reference": (
        {"type": "string", "format": "uri-reference"},
        ['"/a?b#c"', '"x"', '"http://a.b/c"', '"//h"', '""', '"#x"'],
        ['"a b"', '"1:x"', '"%zz"'],
    ),
    "oneOf of references": (UNION, ['{"kind": "a"}', '{"kind": "b"}'], ['{"kind": "c"}', "{}"]),
    "oneOf with null": ({"oneOf": [{"type": "null"}, {"$ref": "#/$defs/A"}], "$defs": {"A": A}}, ["null"], ["1"]),
    "oneOf of required names": (
        {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        ['{"a": 1}', '{"b": 1}'],
        ["{}", '{"a": 1, "b": 1}', '{"b": 1, "a": 1}'],
    ),
    "oneOf of ranges": (
        {"type": "integer", "oneOf": [{"maximum": 3}, {"exclusiveMinimum": 3}]}, ["3", "4"], ["null"],
    ),
    "tuple of draft 07": (
        {"type": "array", "items": [{"type": "null"}], "additionalItems": {"type": "integer"}}, ["[null, 1]"], ["[1]"],
    ),
    "tuple with an end": ({"items": [{"type": "null"}], "additionalItems": False}, ["[null]"], ["[null, 1]"]),
    "$ref with brackets": (
        {"$ref": "#/definitions/Page[User]", "definitions": {"Page[User]": {"type": "null"}}}, ["null"], ["1"],
    ),
    "$ref with escaped brackets": (
        {"$ref": "#/definitions/Page%5BUser%5D", "definitions": {"Page[User]": {"type": "null"}}}, ["null"], ["1"],
    ),
    "$ref elsewhere": ({"$ref": "#/parts/n", "parts": {"n": {"type": "null"}}}, ["null"], ["1"]),
    "$ref by id": ({"$id": "urn:x", "$ref": "urn:x#/$defs/n", "$defs": {"n": {"type": "null"}}}, ["null"], ["1"]),
    "uniqueItems": (
        {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}}, ['["b", "a"]', "[]"], ['["a", "a"]'],
    ),
    "uniqueItems of booleans": (
        {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}}, ["[true, false]"], ["[true, true]"],
    ),
    "uniqueItems of one": ({"type": "array", "uniqueItems": True, "maxItems": 1}, ["[1]"], ["[1, 1]"]),
    "leap years": (
        {"type": "string", "format": "date"},
        ['"2024-02-29"', '"2000-02-29"', '"2023-02-28"', '"2023-12-31"'],
        ['"2023-02-29"', '"1900-02-29"', '"2023-04-31"'],
    ),
    "leap years with a time": (
        {"type": "string", "format": "date-time"}, ['"2024-02-29T10:00:00Z"'], ['"2023-02-29T10:00:00Z"'],
    ),
    "hostname": (
        {"type": "string", "format": "hostname"},
        ['"a.b"', f'"{"a" * 63}.b"'],
        [f'"{"a" * 64}.b"', f'"{".".join(["a" * 60] * 5)}"'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_json_schema_with_keyword_accepts_valid_texts_only(case: str, grammars: GrammarCompiler) -> None:
    schema, valid, invalid = CASES[case]
    assert [text for text in valid if not accepts(grammars, schema, text)] == []
    assert [text for text in invalid if accepts(grammars, schema, text)] == []
    validator = jsonschema.Draft202012Validator(schema)
    if not {"dependencies", "definitions", "items"} & schema.keys() and "$id" not in schema and "parts" not in schema:
        assert [text for text in valid if not validator.is_valid(json.loads(text))] == []


LOOK = {"type": "string", "pattern": "(?=a)b"}
RELAXED: dict[str, tuple[Any, str]] = {
    "not": ({"not": {"multipleOf": 3}, "type": "integer"}, "a.not"),
    "if": ({"type": "integer", "if": {"multipleOf": 3}, "then": {"maximum": 9}}, "a.if"),
    "pattern": (LOOK, "a.pattern"),
    "deeper": ({"type": "array", "items": LOOK}, "a.items.pattern"),
    "in a union": ({"anyOf": [{"type": "null"}, LOOK]}, "a.anyOf[1].pattern"),
    "oneOf": ({"oneOf": [{"type": "string"}, {"pattern": "a"}]}, "a.oneOf"),
    "in a rewritten schema": ({"type": "string", "not": {"not": {"$ref": "#/nowhere"}}}, "a.not"),
    "a reference to elsewhere": ({"$ref": "https://example.org/x"}, "a.$ref"),
    "uniqueItems": ({"type": "array", "uniqueItems": True, "items": {"type": "string"}}, "a.uniqueItems"),
    "uniqueItems of a negative length": (
        {"type": "array", "uniqueItems": True, "items": {"enum": [1]}, "minItems": -1}, "a.uniqueItems",
    ),
    "propertyNames of a huge length": ({"type": "object", "propertyNames": {"minLength": 2**60}}, "a.propertyNames"),
    "no schema": (3, "a"),
}  # fmt: skip


@pytest.mark.parametrize("case", RELAXED)
def test_relaxed_schema_with_unsupported_keyword_leaves_out_and_lists_it(case: str, grammars: GrammarCompiler) -> None:
    inner, place = RELAXED[case]
    properties = {"a": inner, "b": {"type": "boolean"}}
    schema: Any = {"type": "object", "properties": properties, "required": ["b"], "additionalProperties": False}
    accepted = grammars.relaxed(schema)
    assert accepted.unenforced[0] == f"properties.{place}"
    assert accepts(grammars, accepted.schema, '{"b": true}')
    assert not any(accepts(grammars, accepted.schema, text) for text in ("{}", '{"b": 1}', '{"b": true, "c": 1}', "[]"))


def test_relaxed_schema_with_faulty_definition_lists_its_original_place(grammars: GrammarCompiler) -> None:
    schema: Any = {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": LOOK}}
    assert grammars.relaxed(schema).unenforced == ("$defs.x.pattern",)


@pytest.mark.slow
def test_json_schema_with_chain_of_500_references_compiles(grammars: GrammarCompiler) -> None:
    chain: Any = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}, "type": "array"} for n in range(500)}
    grammars.json_schema({"$ref": "#/$defs/d0", "$defs": {**chain, "d500": {"type": "null"}}})


@pytest.mark.skipif(not REAL_SCHEMAS.exists(), reason="the file of real schemas is missing")
@pytest.mark.slow
def test_json_schema_of_real_tools_is_rarely_rejected_and_admits_no_invalid_text(grammars: GrammarCompiler) -> None:
    rejected, admitted = [], []
    for line in REAL_SCHEMAS.read_text().splitlines():
        row = json.loads(line)
        try:
            grammar = grammars.json_schema(row["schema"])
        except GrammarError as error:
            rejected.append((row["name"], error.place, str(error)))
            continue
        for instance in row["invalid"]:
            constraint, text = grammar.start(), json.dumps(instance, ensure_ascii=False).encode()
            if all(map(constraint.try_accept, VOCABULARY.encode_bytes(text))) and constraint.accepting:
                admitted.append(row["name"])
    assert admitted == []
    assert len(rejected) <= MAX_REJECTED, rejected


ESCAPED = [r'"caf\u00e9"', r'"\uD83D\uDE00"', r'"\/"', r'"\u0000"', r'"\b\f\n\r\t\"\\"', '"é😀"']
NO_TEXTS = [
    r'"\ud83d"',
    r'"\ude00"',
    r'"\ud83dx"',
    r'"\ud83d\u0041"',
    r'"\u00g0"',
    r'"\u00"',
    r'"\x41"',
    '"\n"',
    '"\0"',
]
FREE: dict[str, Any] = {
    "a text": ({"type": "string"}, "{}"),
    "anything": ({}, "{}"),
    "an object": ({"type": "object"}, '{{"text": {}}}'),
    "a property": (
        {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        '{{"text": {}}}',
    ),
    "a list": ({"type": "array", "items": {"type": "string"}}, "[{}]"),
    "a reference": ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, "{}"),
    "a union": ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "{}"),
    "a list of types": ({"type": ["string", "null"]}, "{}"),
    "another property": ({"type": "object", "additionalProperties": {"type": "string"}}, '{{"x": {}}}'),
}


@pytest.mark.parametrize("case", FREE)
def test_json_schema_with_free_text_accepts_every_escape(case: str, grammars: GrammarCompiler) -> None:
    schema, around = FREE[case]
    assert [text for text in ESCAPED if not accepts(grammars, schema, around.format(text))] == []
    assert [text for text in NO_TEXTS if accepts(grammars, schema, around.format(text))] == []


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"const": "é"}, ['"é"'], [r'"\u00e9"']),
        ({"enum": ["a/b", "\n"]}, ['"a/b"', r'"\n"'], [r'"a\/b"', r'"\u000a"']),
        ({"type": "object"}, ['{"é": 1}'], [r'{"\u00e9": 1}', r'{"a\/b": 1}']),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, ['{"a": null}'], [r'{"\u0061": 1}', '{"a": 1}']),
        ({"type": "string", "maxLength": 2}, [r'"\u00e9\ud83d\ude00"'], [r'"\u00e9\u00e9\u00e9"']),
        ({"type": "string", "minLength": 2}, [r'"\u00e9a"'], [r'"\ud83d\ude00"', '"a"']),
    ],
)
def test_json_schema_with_names_and_constants_accepts_one_spelling(
    schema: Any, valid: list[str], invalid: list[str], grammars: GrammarCompiler
) -> None:
    assert [text for text in valid if not accepts(grammars, schema, text)] == []
    assert [text for text in invalid if accepts(grammars, schema, text)] == []


# a schema, texts that it accepts, texts that it doesn't
NUMBERS: list[tuple[Any, list[str], list[str]]] = [
    ({"const": 1}, ["1", "1.0", "1.00", "1e0", "1.0E+00"], ["2", "10", "1.1", "-1", "01", "1.", "1e1", "true", '"1"']),
    ({"const": -7}, ["-7", "-7.0", "-7e-0"], ["7", "-70"]),
    ({"const": 0}, ["0", "-0", "0.0", "-0.0", "0e0"], ["1", "0.1", "00"]),
    ({"const": 1.0}, ["1", "1.0"], ["1.5"]),
    ({"const": 1.5}, ["1.5", "1.50", "1.5e0"], ["1", "15", "1.55"]),
    ({"const": -0.05}, ["-0.05", "-0.050"], ["0.05", "-0", "-0.5"]),
    ({"const": 120}, ["120", "120.0"], ["12", "1200"]),
    ({"enum": [1, "1", None, 2.5]}, ["1", "1.0", '"1"', "null", "2.5", "2.50"], ["2", '"1.0"', '"2.5"']),
    ({"type": "integer", "enum": [1, 2, 2.5, "x"]}, ["1", "2.0"], ["2.5", '"x"']),
    ({"type": ["number", "null"], "enum": [1.5, None, "x"]}, ["1.50", "null"], ['"x"']),
    ({"type": "boolean", "enum": [1, True]}, ["true"], ["1", "false"]),
    ({"enum": [True, 1]}, ["true", "1.0"], ["false", "0"]),
    ({"const": 9007199254740993}, ["9007199254740993"], ["9007199254740992"]),
    (
        {"type": "object", "properties": {"a": {"const": 3}}, "required": ["a"]},
        ['{"a": 3.0}', '{"a": 3}'],
        ['{"a": 4}'],
    ),
    ({"anyOf": [{"const": 3}, {"type": "string"}]}, ["3.0", '"x"'], ["4"]),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), NUMBERS, ids=[json.dumps(schema) for schema, *_ in NUMBERS])
def test_json_schema_of_a_number_accepts_every_spelling_of_its_value(
    schema: Any, right: list[str], wrong: list[str], grammars: GrammarCompiler
) -> None:
    assert [text for text in right if not accepts(grammars, schema, text)] == []
    assert [text for text in wrong if accepts(grammars, schema, text)] == []
    validator = jsonschema.Draft202012Validator(schema)
    assert all(validator.is_valid(json.loads(text)) for text in right)
