"""Schemas as generators write them: zod, pydantic, TypeBox, .NET, Go, MCP servers, OpenAPI 3.1."""

import json
from typing import Any

import jsonschema
import pytest

from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.json_schema.test_check import VOCABULARY
from tests.rows import thinned

TEXT, WHOLE, NUMBER, TRUTH, NULL = ({"type": name} for name in ("string", "integer", "number", "boolean", "null"))
DRAFT_7, DRAFT_2020 = "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"


@pytest.fixture(scope="module")
def grammars() -> GrammarCompiler:
    return GrammarCompiler(VOCABULARY)


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    constraint = grammar.start()
    return all(map(constraint.try_accept, VOCABULARY.encode_bytes(text.encode()))) and constraint.accepting


def obj(*required: str, closed: bool = True, **properties: Any) -> Any:
    ends = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": properties, "required": list(required), **ends}


def one(inner: Any, **beside: Any) -> Any:
    """Return an object with one required property `x`."""
    return {**obj("x", x=inner), **beside}


def x(*values: Any) -> list[Any]:
    return [{"x": value} for value in values]


# name -> schema, valid values, invalid values
SCHEMAS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    # zod
    "z.object": (obj("a", "b", a=TEXT, b=NUMBER) | {"$schema": DRAFT_7}, [{"a": "", "b": 1.5}], [{"a": ""}, {"b": 1}]),
    "z.string.email": (one(TEXT | {"format": "email"}), x("a@b.c"), x("a", 1)),
    "z.string.url": (one(TEXT | {"format": "uri"}), x("https://a.b/c?d"), x("a b")),
    "z.string.uuid": (
        one(
            TEXT
            | {"format": "uuid", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"}
        ),
        x("123e4567-e89b-42d3-a456-426614174000"),
        x("123e4567-e89b-02d3-a456-426614174000", "x"),
    ),
    "z.string.datetime": (
        one(TEXT | {"format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$"}),
        x("2024-02-29T10:00:00Z"),
        x("2024-02-30T10:00:00Z", "2024-02-29T10:00:00+01:00"),
    ),
    "z.string.cuid2": (one(TEXT | {"pattern": "^[0-9a-z]+$"}), x("abc1"), x("A", "")),
    "z.string.base64": (
        one(TEXT | {"contentEncoding": "base64", "format": "base64", "pattern": "^([0-9a-zA-Z+/]{4})*$"}),
        x("ab+/"),
        x("a"),
    ),
    "z.string.min.max": (one(TEXT | {"minLength": 2, "maxLength": 3}), x("ab", "日本語"), x("a", "abcd")),
    "z.number.int.positive": (
        one(WHOLE | {"exclusiveMinimum": 0, "maximum": 9007199254740991}),
        x(1, 9007199254740991),
        x(0, -1, 1.5),
    ),
    "z.number.multipleOf": (one(NUMBER | {"multipleOf": 0.01}), x(0.25, 3), x(0.001)),
    "z.literal": (one(TEXT | {"const": "a"}), x("a"), x("b")),
    "z.enum": (one(TEXT | {"enum": ["a", "b"]}), x("a", "b"), x("c")),
    "z.union": (one({"anyOf": [TEXT, NUMBER]}), x("a", 1), x(None)),
    "z.nullable": (one({"anyOf": [TEXT, NULL]}), x("a", None), x(1)),
    "z.nullable of a list of types": (one({"type": ["string", "null"], "minLength": 1}), x("a", None), x("", 1)),
    "z.array.nonempty": (one({"type": "array", "items": TEXT, "minItems": 1}), x(["a"]), x([], [1])),
    "z.tuple": (
        one({"type": "array", "prefixItems": [TEXT, NUMBER], "items": False, "minItems": 2}),
        x(["a", 1]),
        x(["a"], [1, "a"]),
    ),
    "z.tuple of draft 7": (
        one({"type": "array", "items": [TEXT, NUMBER], "minItems": 2, "maxItems": 2}),
        x(["a", 1]),
        x(["a", 1, 2]),
    ),
    "z.record": (
        one({"type": "object", "propertyNames": TEXT, "additionalProperties": NUMBER}),
        x({"a": 1}, {}),
        x({"a": "b"}),
    ),
    "z.record of an enum": (
        one({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": NUMBER}),
        x({"b": 1}),
        x({"c": 1}),
    ),
    "z.discriminatedUnion": (
        one({"oneOf": [obj("t", "n", t={"const": "a"}, n=WHOLE), obj("t", "s", t={"const": "b"}, s=TEXT)]}),
        x({"t": "a", "n": 1}, {"t": "b", "s": ""}),
        x({"t": "a", "s": ""}, {"t": "c"}),
    ),
    "z.intersection": (
        {"allOf": [obj("a", closed=False, a=TEXT), obj("b", closed=False, b=WHOLE)], "unevaluatedProperties": False},
        [{"a": "", "b": 1}],
        [{"a": ""}, {"a": "", "b": 1, "c": 1}],
    ),
    "z.lazy": (
        {"$ref": "#/$defs/n", "$defs": {"n": obj("v", v=TEXT, k={"type": "array", "items": {"$ref": "#/$defs/n"}})}},
        [{"v": "", "k": [{"v": ""}]}],
        [{"v": "", "k": [{}]}],
    ),
    "z.default": (obj(a=TEXT | {"default": "x"}), [{}, {"a": "y"}], [{"a": 1}]),
    "z.never": (obj("a", a=TEXT, b={"not": {}}), [{"a": ""}], [{"a": "", "b": 1}]),
    "z.string.startsWith": (one(TEXT | {"pattern": "^https:\\/\\/.*"}), x("https://a"), x("http://a")),
    # pydantic
    "pydantic.Optional": (obj(a={"anyOf": [WHOLE, NULL], "default": None}), [{"a": None}, {"a": 1}, {}], [{"a": ""}]),
    "pydantic model in a model": (
        one({"allOf": [{"$ref": "#/$defs/A"}], "default": {}}, **{"$defs": {"A": obj("n", n=WHOLE)}}),
        x({"n": 1}),
        x({}, {"n": ""}),
    ),
    "pydantic.Enum": (one({"$ref": "#/$defs/C"}, **{"$defs": {"C": TEXT | {"enum": ["r", "g"]}}}), x("r"), x("b")),
    "pydantic.discriminator": (
        one(
            {
                "discriminator": {"mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}, "propertyName": "kind"},
                "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            },
            **{"$defs": {name.title(): obj("kind", kind=TEXT | {"const": name}, n=WHOLE) for name in ("cat", "dog")}},
        ),
        x({"kind": "cat", "n": 1}, {"kind": "dog"}),
        x({"kind": "cow"}, {}),
    ),
    "pydantic.set": (
        one({"type": "array", "uniqueItems": True, "items": TEXT | {"enum": ["a", "b", "c"]}}),
        x(["c", "a"], []),
        x(["a", "a"]),
    ),
    "pydantic.Decimal": (
        one({"anyOf": [NUMBER, TEXT | {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]}),
        x(1.5, "1.50", "-.5", "+7"),
        x("", "-", "+.", "a"),
    ),
    "a password": (
        one(TEXT | {"pattern": r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{4,}$"}),
        x("aB1c", "1AAA"),
        x("aB1", "abc1", "ABCD", "aB1-"),
    ),
    "texts that begin with no mark": (
        one(TEXT | {"pattern": r"^(?!@@)[\w@]+$"}),
        x("@a", "a@@", "@"),
        x("@@", "@@a", ""),
    ),
    "texts without a space": (one(TEXT | {"pattern": r"^(?!.* ).+$"}), x("ab"), x("a b", "")),
    "a look-behind": (one(TEXT | {"pattern": "a(?<=a)b"}), [], []),
    "a look-ahead inside": (one(TEXT | {"pattern": "^a(?=b)b"}), [], []),
    "pydantic.conint": (one(WHOLE | {"minimum": 1, "maximum": 5}), x(1, 5), x(0, 6)),
    "pydantic.date": (one(TEXT | {"format": "date"}), x("2024-02-29"), x("2023-02-29")),
    "pydantic.time": (one(TEXT | {"format": "time"}), x("10:00:00Z"), x("25:00:00Z")),
    "pydantic.timedelta": (one(TEXT | {"format": "duration"}), x("P1DT2H"), x("1 day")),
    "pydantic.Path": (one(TEXT | {"format": "path"}), x("/a b"), x(1)),
    "pydantic.SecretStr": (one(TEXT | {"format": "password", "writeOnly": True}), x("x"), x(1)),
    "pydantic.dict": (one({"additionalProperties": WHOLE, "type": "object"}), x({"a": 1}), x({"a": ""})),
    "pydantic.tuple": (
        one({"maxItems": 2, "minItems": 2, "prefixItems": [WHOLE, TEXT], "type": "array"}),
        x([1, "a"]),
        x([1], ["a", 1]),
    ),
    "pydantic.IPvAnyAddress": (one(TEXT | {"format": "ipvanyaddress"}), x("1.2.3.4"), x(1)),
    "pydantic.Any": (one({"title": "X"}), x(1, [], {"a": None}), [{}]),
    # TypeBox
    "Type.Union of literals": (
        one({"anyOf": [{"const": "a", "type": "string"}, {"const": 1, "type": "number"}]}),
        x("a", 1),
        x(2),
    ),
    "Type.Composite": (
        {"type": "object", "allOf": [obj("a", closed=False, a=TEXT), obj("b", closed=False, b=TEXT)]},
        [{"a": "", "b": ""}],
        [{"a": ""}],
    ),
    "Type.Not": (one({"type": "string", "not": {"const": "admin"}}), x("user", "adm"), x("admin")),
    "Type.Record": (
        one({"type": "object", "patternProperties": {"^[a-z]+$": WHOLE}, "additionalProperties": False}),
        x({"ab": 1}),
        x({"A": 1}),
    ),
    "Type.Contains": (
        one({"type": "array", "items": TEXT, "contains": {"const": "a"}, "minContains": 1}),
        x(["b", "a"]),
        x(["b"], []),
    ),
    "Type.If": (
        one(TEXT | {"enum": ["a", "b"]}, properties={"x": TEXT | {"enum": ["a", "b"]}, "y": WHOLE})
        | {"if": {"properties": {"x": {"const": "a"}}}, "then": {"required": ["y"]}},
        [{"x": "a", "y": 1}, {"x": "b"}],
        [{"x": "a"}],
    ),
    # .NET
    ".NET int32": (one({"type": "integer", "format": "int32"}), x(1), x(1.5)),
    ".NET nullable int32": (one({"type": ["integer", "null"], "format": "int32"}), x(1, None), x("")),
    ".NET number or text": (
        one({"type": ["string", "number"], "pattern": r"^-?(?:0|[1-9]\d*)(?:\.\d+)?$"}),
        x("1.5", 2),
        x("a", None),
    ),
    ".NET enum without a type": (one({"enum": ["A", "B", None]}), x("A", None), x("C")),
    ".NET reference to the root": (
        obj("n", n=WHOLE, next={"anyOf": [{"$ref": "#"}, NULL]}),
        [{"n": 1, "next": {"n": 2, "next": None}}],
        [{"n": 1, "next": 2}],
    ),
    # Go
    "invopop/jsonschema": (
        {"$schema": DRAFT_2020, "$id": "https://a.b/t", "$ref": "#/$defs/T", "$defs": {"T": obj("n", n=TEXT, m=WHOLE)}},
        [{"n": "", "m": 1}],
        [{"m": 1}],
    ),
    "Go map": (one({"patternProperties": {".*": TEXT}, "type": "object"}), x({"a": "b"}), x({"a": 1})),
    "Go time.Duration": (one({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}), x(10**15), x("1s", 1.5)),
    "Go bool schema": (one(True), x(1, None), [{}]),
    # MCP servers
    "MCP no arguments": ({"type": "object", "properties": {}, "additionalProperties": False}, [{}], [{"a": 1}]),
    "MCP filesystem edit": (
        obj(
            "path",
            "edits",
            path=TEXT,
            edits={"type": "array", "items": obj("oldText", "newText", oldText=TEXT, newText=TEXT)},
        ),
        [{"path": "/a", "edits": [{"oldText": 'é"\n', "newText": ""}]}],
        [{"path": "/a", "edits": [{"oldText": ""}]}],
    ),
    "MCP one of two arguments": (
        {
            "type": "object",
            "properties": {"id": WHOLE, "name": TEXT},
            "oneOf": [{"required": ["id"]}, {"required": ["name"]}],
        },
        [{"id": 1}, {"name": ""}],
        [{}, {"id": 1, "name": ""}],
    ),
    "MCP at least one argument": (
        {
            "type": "object",
            "properties": {"id": WHOLE, "name": TEXT},
            "anyOf": [{"required": ["id"]}, {"required": ["name"]}],
        },
        [{"id": 1}, {"id": 1, "name": ""}],
        [{}],
    ),
    "MCP arguments together": (
        {
            "type": "object",
            "properties": {"lat": NUMBER, "lon": NUMBER},
            "dependentRequired": {"lat": ["lon"], "lon": ["lat"]},
        },
        [{}, {"lat": 1, "lon": 2}],
        [{"lat": 1}],
    ),
    "MCP grep": (obj("pattern", pattern=TEXT | {"format": "regex"}), [{"pattern": r"def \w+\("}], [{"pattern": "("}]),
    # OpenAPI 3.1
    "OpenAPI nullable of 3.0": (one({"type": "string", "nullable": True}), x("a"), x(1)),
    "OpenAPI readOnly": (
        obj("a", a=TEXT | {"readOnly": True, "example": "x", "xml": {"name": "a"}}),
        [{"a": ""}],
        [{}],
    ),
    "OpenAPI allOf with a discriminator": (
        {
            "allOf": [{"$ref": "#/components/schemas/Pet"}, obj("bark", closed=False, bark=TRUTH)],
            "components": {"schemas": {"Pet": obj("kind", closed=False, kind=TEXT)}},
        },
        [{"kind": "dog", "bark": True}],
        [{"kind": "dog"}],
    ),
    "OpenAPI if by country": (
        obj("country", "zip", country=TEXT, zip=TEXT)
        | {
            "if": {"properties": {"country": {"const": "US"}}},
            "then": {"properties": {"zip": {"pattern": r"^\d{5}(-\d{4})?$"}}},
        },
        [{"country": "US", "zip": "12345"}, {"country": "NL", "zip": "1234 AB"}],
        [{"country": "US", "zip": "AB"}],
    ),
    "OpenAPI exclusive limits of draft 4": (one({"type": "number", "minimum": 0, "maximum": 1}), x(0, 0.5), x(2)),
}
REFUSED = {"a look-behind": "look-around", "a look-ahead inside": "look-around"}


@pytest.mark.parametrize("name", thinned({name: name for name in SCHEMAS}))
def test_schema_of_generator_is_enforced(name: str, grammars: GrammarCompiler) -> None:
    schema, valid, invalid = SCHEMAS[name]
    if name in REFUSED:
        with pytest.raises(Exception, match=REFUSED[name]):
            grammars.json_schema(schema)
        return
    grammar = grammars.json_schema(schema)
    texts = [json.dumps(value, ensure_ascii=ascii_only) for value in valid for ascii_only in (True, False)]
    assert [text for text in texts if not accepts(grammar, text)] == []
    assert [value for value in invalid if accepts(grammar, json.dumps(value))] == []
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    if "draft" not in name:
        assert all(checker.is_valid(value) for value in valid)
