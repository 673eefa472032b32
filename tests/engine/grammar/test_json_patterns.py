"""Patterns of texts, rewritten for their JSON: the same texts as in Python, in every spelling of encoders."""

import json
import re
from typing import Any

import pytest

from engine.grammar.json_patterns import MAX_PATTERN, escaped_pattern, name_pattern
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.json_schema.test_check import VOCABULARY
from tests.rows import thinned

CHARACTERS = ["a", "Z", "1", "_", "é", "日", "😀", " ", "-", '"', "\\", "/", "&", "<", "+", "\n", "\t", "\x00", "\x7f"]
ATOMS = [
    *(r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", "[^a]", "[a-z/]", r"[^\d\s]", r"[^\w]", r"[\w.+-]", r"\p{L}"),
    *(r"\/", '[^"]', r"\\", "é", "[à-ÿ]", "[^é]", r"\x22", r"\u00e9", r"\u{e9}", "[^<>]", "&", r"[\]\\]", "日|<"),
    *("[😀é]", "[^😀]"),
]
UNESCAPED = {r"\W": "😀", r"\D": "😀", r"[^\d\s]": "😀", r"[^\w]": "😀", "[😀é]": "😀"}
"""Characters that a class has and whose escapes are not read: of two units, beside some that it does not have."""


@pytest.fixture(scope="module")
def grammars() -> GrammarCompiler:
    return GrammarCompiler(VOCABULARY)


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    constraint = grammar.start()
    return all(map(constraint.try_accept, VOCABULARY.encode_bytes(text.encode()))) and constraint.accepting


def spellings(text: str) -> list[str]:
    """Return the JSON of a text: as UTF-8, in ASCII, with upper-case digits, with escapes for HTML and JavaScript."""
    plain = json.dumps(text, ensure_ascii=False)
    upper = re.sub(r"\\u[0-9a-f]{4}", lambda found: rf"\u{found[0][2:].upper()}", json.dumps(text))
    html = "".join(rf"\u{ord(char):04x}" if char in "<>&'+=" else char for char in plain)
    return [plain, json.dumps(text), upper, html, plain.replace("/", r"\/")]


@pytest.mark.slow
@pytest.mark.parametrize("atom", thinned(dict(zip(ATOMS, ATOMS, strict=True))))
def test_json_schema_with_pattern_accepts_escapes_of_matching_texts_only(atom: str, grammars: GrammarCompiler) -> None:
    grammar = grammars.json_schema({"type": "string", "pattern": f"^x({atom})*$"})
    python = re.sub(r"\\p\{L\}", r"[^\\W\\d_]", re.sub(r"\\u\{e9\}", "é", atom))
    matching = [char for char in CHARACTERS if re.fullmatch(python, char) and re.fullmatch(python, char, re.ASCII)]
    others = [
        char for char in CHARACTERS if not re.fullmatch(python, char) and not re.fullmatch(python, char, re.ASCII)
    ]
    texts = [f"x{char}" for char in matching if char not in "\x00\x7f" + UNESCAPED.get(atom, "")]
    assert [each for text in ("x", *texts) for each in spellings(text) if not accepts(grammar, each)] == []
    admitted = [each for char in others for each in spellings(f"x{char}") if accepts(grammar, each)]
    assert admitted == []


# schema, valid texts, invalid texts
CASES: list[tuple[Any, list[str], list[str]]] = [
    (
        {"pattern": "^.{2,3}$"},
        [r'"\u00e9\u00e9\u00e9"', r'"\ud83d\ude00a"'],
        [r'"\u00e9"', r'"\ud83d\ude00"', '"abcd"'],
    ),
    ({"pattern": "é", "maxLength": 2}, ['"éx"', r'"x\u00e9"'], [r'"ab\u00e9"', '"xx"']),
    ({"pattern": "^[^/]+$"}, [r'"\u00e9"', r'"\""', r'"\n"'], ['"a/b"', r'"a\/b"', r'"\u002f"', r'"\u002F"']),
    ({"pattern": "^https?://[a-z.]+/?$"}, ['"http://a.b/"', r'"http:\/\/a.b\/"'], ['"ftp://a"', r'"http:\/a"']),
    ({"allOf": [{"pattern": "é"}, {"pattern": "^..$"}]}, ['"éa"', r'"a\u00e9"'], ['"é"', '"aa"']),
    ({"pattern": "^[a-z &]+$"}, ['"a & b"', r'"a \u0026 b"'], [r'"\u0061"', r'"\u003c"']),
    ({"pattern": "^a|é$"}, ['"a"', r'"\u00e9"'], ['"b"']),
    ({"pattern": r"^é\$$"}, ['"é$"', r'"\u00e9$"'], ['"é"']),
    ({"format": "uri-template"}, ['"/{a}"', r'"\/{a}"', r'"?a\u0026b"'], [r'"\u003c"', r'"{\/}"']),
    ({"format": "uri-reference"}, ['"/a/b"', r'"\/a\/b"'], [r'"\u0020"']),
    ({"format": "uri"}, ['"http://a.b/c"', r'"http:\/\/a.b\/?x=1\u0026y"'], ['"//a"', r'"http:\/\/a b"']),
    ({"format": "email"}, ['"a+b@c.d"', r'"a\u002bb@c.d"'], [r'"a\u0040c.d"', '"a@b@c"']),
    ({"format": "json-pointer"}, ['"/a/é"', r'"\/a\/\u00e9"'], [r'"\u00e9"']),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), CASES, ids=[json.dumps(schema) for schema, *_ in CASES])
def test_json_schema_with_text_keywords_accepts_escapes(
    schema: Any, valid: list[str], invalid: list[str], grammars: GrammarCompiler
) -> None:
    grammar = grammars.json_schema({"type": "string", **schema})
    assert [text for text in valid if not accepts(grammar, text)] == []
    assert [text for text in invalid if accepts(grammar, text)] == []


@pytest.mark.parametrize(
    "pattern", ["(?=é)", "(?!é)", r"é\b", "(é|^a)", "(é", "é)", "é{", "(?i)é", r"\p{Greek}é", r"(é)\1"]
)
def test_escaped_pattern_of_other_syntax_returns_none(pattern: str) -> None:
    assert escaped_pattern(pattern) is None


def test_escaped_pattern_without_escapable_characters_returns_none() -> None:
    assert [escaped_pattern(pattern) for pattern in ("^[a-z]{2,5}$", r"^\w+@x\.y$", "^(yes|no)$")] == [None] * 3


def test_escaped_pattern_of_large_pattern_returns_none() -> None:
    assert escaped_pattern("^" + "(é|[^a])" * (MAX_PATTERN // 100) + "$") is None


def test_name_pattern_gives_each_name_one_spelling(grammars: GrammarCompiler) -> None:
    assert name_pattern("^[a-z]+$") is not None
    schema: Any = {"type": "object", "patternProperties": {'^[^a]["/é]?$': {"type": "string"}}}
    grammar = grammars.json_schema(schema | {"additionalProperties": False})
    valid = [r'{"b\"": "\u00e9"}', r'{"b/": "x", "\"é": ""}', "{}"]
    assert [text for text in valid if not accepts(grammar, text)] == []
    assert [
        text for text in (r'{"b\/": ""}', r'{"b\u00e9": ""}', '{"a": ""}', '{"b": 1}') if accepts(grammar, text)
    ] == []


# schema without a type or with several
SPLIT: list[tuple[Any, list[str], list[str]]] = [
    (
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        [r'{"a": "\u00e9"}', r'"\u00e9"', "1", "[]"],
        ["{}"],
    ),
    ({"items": {"type": "string"}}, [r'["\u00e9"]', "{}", "null"], ["[1]"]),
    ({"type": ["string", "null"], "maxLength": 1}, [r'"\u00e9"', "null"], [r'"\u00e9a"', "1"]),
    ({"type": ["array", "string"], "items": {"type": "string"}, "minLength": 1}, [r'["\u00e9"]', '"x"'], ['""', "[1]"]),
    ({"type": "string", "required": ["a"]}, [r'"\u00e9"'], ["{}"]),
    ({"minimum": 3, "type": ["integer", "string"]}, ["3", r'"\u00e9"'], ["2", "3.5"]),
    ({"allOf": [{"type": "string"}]}, [r'"\u00e9"'], ["1"]),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), SPLIT, ids=[json.dumps(schema) for schema, *_ in SPLIT])
def test_json_schema_without_one_type_accepts_escapes(
    schema: Any, valid: list[str], invalid: list[str], grammars: GrammarCompiler
) -> None:
    grammar = grammars.json_schema(schema)
    assert [text for text in valid if not accepts(grammar, text)] == []
    assert [text for text in invalid if accepts(grammar, text)] == []
