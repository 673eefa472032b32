"""Grammars over SmolLM2's vocabulary: allowed tokens, and schemas that are rejected."""

import json
import os
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import settings
from llguidance import LLMatcher, LLParserLimits

from engine.constraint import Grammar, GrammarError
from engine.json_schema import SUPPORTED
from engine.loader import model_file
from engine.model import FloatArray
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.structured_output.compiler import MAX_COMPILED_BYTES, GrammarCompiler
from engine.tokenizer.vocabulary import Vocabulary
from tests.support import schemas

SEEDS = range(11 * settings().max_examples)
"""Seeds of schemas: 1,100 in .ci/run."""
MAX_TOKENS = 200


@pytest.fixture(scope="module")
def vocabulary(smollm2: Path) -> Vocabulary:
    return model_file.read(smollm2)[1]


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> GrammarCompiler:
    return GrammarCompiler(vocabulary)


class Noise:
    """Logits of a random model at temperature 1.5, so that their maximum is a sample (Gumbel-max trick).

    Tokens that end texts are a little more likely than the others.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        random = np.random.default_rng(5)
        texts = [vocabulary.bytes_of(id_) for id_ in range(len(vocabulary))]
        likes = np.array([9.0 * any(mark in text for mark in (b'"', b"}", b"]", b"@", b":")) for text in texts])
        likes[list(vocabulary.end_tokens)] = 9
        size = len(texts)
        self._rows: list[FloatArray] = [
            ((random.normal(0, 2, size) + likes) / 1.5 + random.gumbel(size=size)).astype(np.float32) for _ in range(64)
        ]
        self._pick = random.integers

    def logits(self) -> FloatArray:
        return self._rows[int(self._pick(len(self._rows)))].copy()


def write(grammar: Grammar, vocabulary: Vocabulary, noise: Noise) -> str | None:
    """Return a sampled text; None if it does not end."""
    constraint, written = grammar.start(), b""
    for _ in range(MAX_TOKENS):
        logits = noise.logits()
        constraint.apply_mask(logits)
        token = int(logits.argmax())
        constraint.accept(token)
        if token in vocabulary.end_tokens:
            return written.decode()
        written += vocabulary.bytes_of(token)
    return None


def valid(text: str, schema: Any) -> bool:
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    return bool(checker.is_valid(json.loads(text)))


def accepts(grammar: Grammar, vocabulary: Vocabulary, text: str) -> bool:
    """True if the grammar allows the text, token by token, and the end after it."""
    constraint = grammar.start()
    for token in [*vocabulary.encode_prompt(text), min(vocabulary.end_tokens)]:
        logits = np.zeros(len(vocabulary), np.float32)
        constraint.apply_mask(logits)
        if np.isneginf(logits[token]):
            return False
        constraint.accept(token)
    return True


def test_json_schema_with_random_schemas_yields_valid_documents_only(
    grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    noise = Noise(vocabulary)
    found = [(schema, write(grammars.json_schema(schema), vocabulary, noise)) for schema in map(schemas.schema, SEEDS)]
    finished = [(schema, text) for schema, text in found if text is not None]
    assert len(finished) > 0.9 * len(SEEDS)
    assert [(schema, text) for schema, text in finished if not valid(text, schema)] == []


ANY_OBJECT: dict[str, Any] = {"type": "object"}
OBJECT: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

# keyword -> schema with it, valid text, invalid text
KEYWORDS: dict[str, tuple[Any, str, str]] = {
    "type": ({"type": "boolean"}, "true", "1"),
    "enum": ({"enum": ["é", None, {"x": 1}]}, '{"x": 1}', '"e"'),
    "const": ({"const": 7}, "7", "8"),
    "anyOf": ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "null", '"x"'),
    "oneOf": ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, "3", '"x"'),
    "allOf": ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, "5", "4"),
    "$ref": ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}, "null", "1"),
    "$defs": ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, "null", "1"),
    "definitions": ({"$ref": "#/definitions/n", "definitions": {"n": {"type": "null"}}}, "null", "1"),
    "properties": (OBJECT, '{"a": 1}', '{"a": "1"}'),
    "patternProperties": ({"type": "object", "patternProperties": {"^a": OBJECT}}, '{"b": 1}', '{"ab": 1}'),
    "additionalProperties": (OBJECT | {"additionalProperties": False}, '{"a": 1}', '{"a": 1, "b": 2}'),
    "required": (OBJECT, '{"a": 1, "b": 2}', '{"b": 2}'),
    "minProperties": ({"type": "object", "minProperties": 1}, '{"a": 1}', "{}"),
    "maxProperties": ({"type": "object", "maxProperties": 1}, '{"a": 1}', '{"a": 1, "b": 2}'),
    "items": ({"type": "array", "items": {"type": "null"}}, "[null, null]", "[1]"),
    "prefixItems": ({"type": "array", "prefixItems": [{"type": "null"}], "items": False}, "[null]", "[null, 1]"),
    "minItems": ({"type": "array", "minItems": 2}, "[1, 2]", "[1]"),
    "maxItems": ({"type": "array", "maxItems": 1}, "[1]", "[1, 2]"),
    "minLength": ({"type": "string", "minLength": 2}, '"日本"', '"日"'),
    "maxLength": ({"type": "string", "maxLength": 1}, '"日"', '"日本"'),
    "pattern": ({"type": "string", "pattern": "^[a-z]+$"}, '"abc"', '"a1"'),
    "format": ({"type": "string", "format": "date"}, '"2024-02-29"', '"2024-02-30"'),
    "minimum": ({"type": "integer", "minimum": 5}, "5", "4"),
    "maximum": ({"type": "number", "maximum": 5.5}, "5.5", "5.6"),
    "exclusiveMinimum": ({"type": "integer", "exclusiveMinimum": 5}, "6", "5"),
    "exclusiveMaximum": ({"type": "integer", "exclusiveMaximum": 5}, "4", "5"),
    "multipleOf": ({"type": "integer", "multipleOf": 7}, "21", "20"),
}


def test_keywords_with_cases_equal_supported_keywords() -> None:
    assert KEYWORDS.keys() == SUPPORTED


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_json_schema_with_keyword_enforces_it(keyword: str, grammars: GrammarCompiler, vocabulary: Vocabulary) -> None:
    schema, valid_text, invalid_text = KEYWORDS[keyword]
    grammar = grammars.json_schema(schema)
    assert (accepts(grammar, vocabulary, valid_text), accepts(grammar, vocabulary, invalid_text)) == (True, False)


def error_of(grammars: GrammarCompiler, schema: Any) -> tuple[str, str]:
    """Return place and message of the error."""
    with pytest.raises(GrammarError) as caught:
        grammars.json_schema(schema)
    return caught.value.place, str(caught.value)


UNSUPPORTED: dict[str, Any] = {
    "not": {"pattern": "a"},
    "if": {"pattern": "a"},
    "dependencies": {name: ["x"] for name in "abcdef"},
    "dependentRequired": {name: ["x"] for name in "abcdef"},
    "dependentSchemas": {name: {"required": ["x"]} for name in "abcdef"},
    "contains": {"pattern": "a"},
    "uniqueItems": True,
    "unevaluatedItems": False,
    "propertyNames": {"format": "date"},
    "unevaluatedProperties": False,
    "$dynamicRef": "#x",
    "$recursiveRef": "#",
    "x-guidance": {},
}
BRANCHES = {"allOf": [{"anyOf": [{"required": ["a"]}, {"maxItems": 3}]}]}
BESIDE: dict[str, Any] = {
    "if": {"then": {"required": ["b"]}},
    "contains": {"maxContains": 1},
    "unevaluatedItems": BRANCHES,
    "unevaluatedProperties": BRANCHES,
}


@pytest.mark.parametrize("keyword", sorted(UNSUPPORTED))
def test_json_schema_with_unsupported_keyword_raises_error_with_place(keyword: str, grammars: GrammarCompiler) -> None:
    inner = {keyword: UNSUPPORTED[keyword], **BESIDE.get(keyword, {})}
    schema = {"type": "object", "properties": {"list": {"items": {"anyOf": [{"type": "null"}, inner]}}}}
    place = f"properties.list.items.anyOf[1].{keyword}"
    if keyword == "dependencies":
        keyword = "dependentRequired"
    found = error_of(grammars, schema)
    assert (found[0], found[1].split(" unless")[0].split(" for ")[0].split(" beside")[0]) == (
        place,
        f"the keyword `{keyword}` is not supported",
    )


@pytest.mark.parametrize(
    ("schema", "place", "sentence"),
    [
        ({"type": "no-such-type"}, "type", "Invalid type: no-such-type"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern", "regex parse error: look-around, including look-ahead"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum", "Unsatisfiable schema: minimum (5) is greater"),
        ({"minimum": 5, "exclusiveMinimum": True}, "exclusiveMinimum", "`exclusiveMinimum` must be a number"),
        ({"items": [{}], "prefixItems": [{}]}, "items", "`items` as a list is not supported beside"),
        ({"type": "object", "minProperties": 2}, "minProperties", "`minProperties` beyond 1 and"),
        ({"oneOf": [{"type": "string"}, {"pattern": "a"}]}, "oneOf", "`oneOf` is not supported unless its"),
        ({"type": "string", "not": {"minLength": 0}}, "not", "Unsatisfiable schema"),
        ({"$ref": "https://example.org/schema"}, "$ref", "the `$ref` to 'https://example.org/schema' does not"),
        ({"$ref": "#/hidden"}, "$ref", "the `$ref` to '#/hidden' does not resolve within"),
        ({"$ref": "#"}, "$ref", "the `$ref` to '#' refers back to itself"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "$ref", "the `$ref` to '#"),
        ({"type": "integer", "minimum": 2**53 + 1}, "minimum", "`minimum` beyond 2**53 is not supported"),
        ({"minimum": 10**30}, "minimum", "`minimum` beyond 2**53 is not supported"),
        ({"type": "number", "minimum": 0, "maximum": 1e30}, "maximum", "Failed to generate regex for float range"),
        ({"maximum": -(2**53) - 1}, "maximum", "`maximum` beyond 2**53 is not supported"),
        ({"exclusiveMinimum": 2**53}, "exclusiveMinimum", "`exclusiveMinimum` beyond 2**53 is not supported"),
        ({"type": "integer", "multipleOf": 999983}, "multipleOf", "`multipleOf` of more than 10000 steps is not"),
        ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, "allOf[1].multipleOf", "`multipleOf` of more than"),
        ({"const": ["a\0"]}, "const", "a required control character is not supported"),
        ({"enum": ["b", {"b": "a\x7f"}]}, "enum", "a required control character is not supported"),
        (
            {"patternProperties": {"^a\0": {}}},
            "patternProperties",
            "a required control character is not supported",
        ),
        *(
            (
                {"type": "string", "pattern": pattern},
                "pattern",
                "a required control character is not supported",
            )
            for pattern in ("^a\0$", r"a\x01?b", r"[\x01]", r"[a](\u{1f}|b)", r"\u001f", r"\[\v\]", r"a\x7fb")
        ),
        ({"enum": ["x" * 70_000]}, "enum", "it has 70"),
        ({"properties": {"a": 3}}, "properties.a", "a schema must be an object"),
        (False, "", "Unsatisfiable schema: schema is false"),
    ],
)
def test_json_schema_with_unsupported_value_raises_error_with_place(
    schema: Any, place: str, sentence: str, grammars: GrammarCompiler
) -> None:
    found = error_of(grammars, schema)
    assert (found[0], found[1][: len(sentence)]) == (place, sentence)


LETTERS = {"type": "string", "allOf": [{"pattern": letter} for letter in "abcdefgh"]}
REPEATED = {"type": "string", "pattern": "^([a-z]{0,100}){0,100}$"}
LOOKING_BACK = {"type": "string", "pattern": "^.*a.{500}$"}


def all_of(**properties: Any) -> Any:
    return {"type": "object", "properties": properties, "required": list(properties)}


def names(n: int) -> Any:
    return {"type": "object", "properties": {f"name{i}": {"type": "string"} for i in range(n)}}


# Schemas that compile and whose answers would fail soon.
FAILING_SOON: dict[str, tuple[Any, str, str]] = {
    "at once": (LETTERS, "allOf", "its patterns take too much work"),
    "behind other properties": (
        all_of(a={"type": "string"}, b={"type": "integer"}, c=LETTERS),
        "properties.c.allOf",
        "its patterns take too much work",
    ),
    "in an array": (
        all_of(a={"type": "array", "items": all_of(x={"type": "string"}, y=LETTERS)}),
        "properties.a.items.properties.y.allOf",
        "its patterns take too much work",
    ),
    "in a definition": (
        all_of(a={"$ref": "#/$defs/a"}) | {"$defs": {"a": LETTERS}},
        "$defs.a.allOf",
        "its patterns take too much work",
    ),
    "after some letters": (all_of(a=REPEATED), "properties.a.pattern", "its patterns take too much work"),
    "after more letters": (all_of(a=LOOKING_BACK), "properties.a.pattern", "its patterns take too much work"),
    "as a name": (
        {"type": "object", "patternProperties": {"^.*a.{500}$": {}}},
        "patternProperties",
        "its patterns take too much work",
    ),
    "too many properties": (all_of(a=names(1400)), "properties.a", "it allows too many alternatives at once"),
}


@pytest.mark.parametrize("case", FAILING_SOON)
def test_json_schema_whose_grammar_fails_soon_raises_error_with_place(case: str, grammars: GrammarCompiler) -> None:
    schema, place, sentence = FAILING_SOON[case]
    assert error_of(grammars, schema) == (place, sentence)
    assert grammars.relaxed(schema).unenforced == (place,)


PASSWORD: Any = {"type": "string", "minLength": 8, "maxLength": 64}
PASSWORD["allOf"] = [{"pattern": pattern} for pattern in ("[A-Z]", "[a-z]", "[0-9]", "[^A-Za-z0-9]")]
COSTLY = {
    "a letter before 60 others": {"type": "string", "pattern": "^.*a.{60}$"},
    "letters, others, digits": {"type": "string", "pattern": "[a-z]{3}.{100}[0-9]{3}"},
    "words of words": {"type": "string", "pattern": "^([a-z]{0,30}){0,30}$"},
    "letters of any script": {"type": "string", "pattern": r"^(\p{L}+[ ]?){1,100}$"},
    "a password": PASSWORD,
}


@pytest.mark.parametrize("case", COSTLY)
def test_mask_of_costly_pattern_is_found_at_every_length(
    case: str, grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    random = np.random.default_rng(5)
    ids = range(len(vocabulary))
    inside = [b'"' not in vocabulary.bytes_of(id_) and id_ not in vocabulary.end_tokens for id_ in ids]
    plain = np.where(inside, np.float32(0), -np.inf)
    for _ in range(2):
        constraint = grammars.json_schema(COSTLY[case]).start()
        constraint.accept(vocabulary.encode_bytes(b'"')[0])
        for _ in range(150):
            logits = plain.copy()
            constraint.apply_mask(logits)
            found = np.flatnonzero(logits == 0)
            if not found.size:
                break
            constraint.accept(int(random.choice(found)))


def test_constraint_whose_lexer_is_full_continues_with_another(
    grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    source = LLMatcher.grammar_from_regex("(a|b)*a(a|b){12}c")
    limits = LLParserLimits(max_lexer_states=1500)
    make = partial(LLMatcher, grammars._sources._tokenizer, source, log_level=0, limits=limits)
    grammar = CompiledGrammar(make, vocabulary, 0, source)
    first, second = grammar.start(), grammar.start()
    text = "".join(np.random.default_rng(1).choice(["a", "b"], 400))
    tokens = vocabulary.encode_bytes(text.encode() + b"abbbbbbbbbbbb")
    for token in tokens:
        assert token in first.allowed(vocabulary.end_tokens)
        first.accept(token)
    assert first.n_renewals > 0
    assert all(map(second.try_accept, tokens))
    ends = [constraint.try_accept(vocabulary.encode_bytes(b"c")[0]) for constraint in (first, second)]
    assert (ends, first.stopped, second.stopped) == ([True, True], True, True)


def test_json_schema_with_1000_optional_properties_enforces_them(
    grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    grammar = grammars.json_schema(names(1000) | {"additionalProperties": False})
    texts = ["{}", '{"name7": "x", "name999": ""}', '{"name7": 1}', '{"name1000": ""}', '{"name8": "", "name7": ""}']
    assert [accepts(grammar, vocabulary, text) for text in texts] == [True, True, False, False, False]


@pytest.mark.parametrize("pattern", [r"^[^\x00-\x1f\x7f]b\n$", r"^[\]\x00a]b\x0a$", r"^\\?ab\u{a}$", "^ab[\n]$"])
def test_json_schema_with_optional_control_characters_compiles(
    pattern: str, grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    grammar = grammars.json_schema({"type": "string", "pattern": pattern})
    assert (accepts(grammar, vocabulary, r'"ab\n"'), accepts(grammar, vocabulary, '"ab"')) == (True, False)


@pytest.mark.parametrize("most", [2**53, 2**63 - 1, 2**63, 2**64 - 1])
def test_json_schema_with_maximum_of_unsigned_integer_types_enforces_it(
    most: int, grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    grammar = grammars.json_schema({"type": "integer", "minimum": 0, "maximum": most})
    assert accepts(grammar, vocabulary, str(2**53))
    assert not accepts(grammar, vocabulary, str(most + 1))


@pytest.mark.parametrize("type_", ["integer", ["integer", "null"], ["number", "string"]])
@pytest.mark.parametrize("least", [-(2**63), -(2**63) + 1])
def test_json_schema_with_64_bit_limits_enforces_them(
    type_: Any, least: int, grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    """A thousand integers next to the lowest are excluded; see `clamped`."""
    grammar = grammars.json_schema({"type": type_, "minimum": least, "maximum": 2**63 - 1})
    for sign in (1, -1):
        values = [0, 2**53 + 1, 10**18, 2**63 - 1024, 2**63 + 1, 10**19, 10**20]
        assert [accepts(grammar, vocabulary, str(sign * value)) for value in values] == [True] * 4 + [False] * 3
    assert accepts(grammar, vocabulary, str(2**63 - 1)) or "integer" not in type_


def test_json_schema_with_minimum_below_64_bits_enforces_it(grammars: GrammarCompiler, vocabulary: Vocabulary) -> None:
    grammar = grammars.json_schema({"type": "integer", "minimum": -(10**20)})
    values = [-(10**20) - 1, -(2**63) + 1024, 0, 10**20]
    assert [accepts(grammar, vocabulary, str(value)) for value in values] == [False, True, True, True]


def test_json_schema_nested_too_deep_raises_error(grammars: GrammarCompiler) -> None:
    schema: Any = {}
    for _ in range(2000):
        schema = {"items": schema}
    assert error_of(grammars, schema) == ("", "the schema is nested deeper than 100 levels")


def test_json_schema_with_no_op_keywords_ignores_them(grammars: GrammarCompiler, vocabulary: Vocabulary) -> None:
    grammar = grammars.json_schema({"type": "array", "uniqueItems": False, "additionalItems": True, "title": "x"})
    assert accepts(grammar, vocabulary, "[1, 1]")


def test_json_schema_with_property_rejects_second_copy_in_other_spelling(
    grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    grammar = grammars.json_schema(OBJECT | {"additionalProperties": {"type": "string"}})
    texts = ['{"a": 1, "b": "x"}', '{"a": 1, "\\u0061": "x"}', '{"a": 1, "a": "x"}']
    assert [accepts(grammar, vocabulary, text) for text in texts] == [True, False, False]


def test_json_schema_allows_the_white_space_of_json_dumps_only(
    grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    schema = OBJECT | {"properties": {"a": {"type": "array"}}}
    values: list[Any] = [[], [1, {}], [1, {"b": 2, "c": {"d": None}}]]
    right = [json.dumps({"a": value}) for value in values]
    wrong = [*('{"a":[]}', '{"a": [ ]}', '{ "a": []}', '{"a": [] }', '{"a":  []}', '{"a": [1,2]}', '{"a": [1 , 2]}')]
    wrong += ['{\n"a": []}', '{"a":\n[]}', '{"a": [{ }]}', '{"a": [{"b":1}]}', ' {"a": []}', '{"a": []} ']
    grammar = grammars.json_schema(schema)
    assert [text for text in right if not accepts(grammar, vocabulary, text)] == []
    assert [text for text in wrong if accepts(grammar, vocabulary, text)] == []


def test_schema_of_any_object_accepts_every_object(grammars: GrammarCompiler, vocabulary: Vocabulary) -> None:
    texts = ["{}", '{"a": [1, {"b": null}], "c": "é\\n"}', "[]", "3", '{"a"}', "{", ""]
    assert [accepts(grammars.json_schema(ANY_OBJECT), vocabulary, text) for text in texts] == [True, True, *[False] * 5]


def test_regex_and_lark_accept_matching_texts(grammars: GrammarCompiler, vocabulary: Vocabulary) -> None:
    regex, lark = grammars.regex("[a-z]+ ?[0-9]{2}"), grammars.lark('start: "call " name\nname: /[a-z]+/')
    assert [accepts(regex, vocabulary, text) for text in ("abc 12", "abc", "12")] == [True, False, False]
    assert [accepts(lark, vocabulary, text) for text in ("call it", "call ")] == [True, False]


@pytest.mark.parametrize(("regex", "lark"), [("(", "start: nobody"), ("a(?!b)", "no rules")])
def test_regex_and_lark_with_syntax_error_raise_grammar_error(regex: str, lark: str, grammars: GrammarCompiler) -> None:
    with pytest.raises(GrammarError, match="regex"):
        grammars.regex(regex)
    with pytest.raises(GrammarError):
        grammars.lark(lark)


@pytest.mark.parametrize("lark", ['start: "a" start', "start: /[ab]/ rest\nrest: /c/ rest", "start: start"])
def test_dry_run_of_grammar_without_output_raises_grammar_error(lark: str, grammars: GrammarCompiler) -> None:
    with pytest.raises(GrammarError):
        grammars.lark(lark).dry_run()


@pytest.mark.parametrize("lark", ["start: ", 'start: "a" | "b" start', "start: /(?s:.*)/", 'start: "a"{50}'])
def test_dry_run_of_valid_grammar_raises_nothing(lark: str, grammars: GrammarCompiler) -> None:
    grammars.lark(lark).dry_run()


def test_apply_mask_allows_end_tokens_only_where_grammar_accepts(
    grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    constraint, ends = grammars.json_schema({"type": "integer"}).start(), sorted(vocabulary.end_tokens)
    may_end = []
    for token in vocabulary.encode("-12"):
        logits = np.zeros(len(vocabulary), np.float32)
        constraint.apply_mask(logits)
        may_end.append([bool(logits[end] == 0) for end in ends])
        constraint.accept(token)
    constraint.accept(ends[-1])
    assert may_end == [[False, False], [False, False], [True, True]]


def test_accept_of_forbidden_token_raises_grammar_error(grammars: GrammarCompiler, vocabulary: Vocabulary) -> None:
    constraint = grammars.json_schema(ANY_OBJECT).start()
    with pytest.raises(GrammarError):
        constraint.accept(vocabulary.encode("no")[0])


def test_started_with_bytes_returns_constraint_if_grammar_allows_them(grammars: GrammarCompiler) -> None:
    grammar = grammars.regex("(?s:[^b]*)")
    written = [grammar.started_with(data) for data in (b"", "aé".encode(), "é".encode()[:1], b"ab", b"a\x04")]
    assert [None if each is None else each.accepting for each in written] == [True, True, False, None, None]


def test_try_accept_of_forbidden_token_changes_nothing(grammars: GrammarCompiler, vocabulary: Vocabulary) -> None:
    constraint, (a, b) = grammars.regex("ab").start(), (vocabulary.encode(char)[0] for char in "ab")
    assert [constraint.try_accept(token) for token in (b, a, a, b)] == [False, True, False, True]
    assert constraint.accepting


def test_compiled_grammar_is_cached_and_starts_independent_constraints(
    grammars: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    grammar = grammars.json_schema(OBJECT)
    assert grammars.json_schema(dict(OBJECT)) is grammar
    assert accepts(grammar, vocabulary, '{"a": 1}')
    assert accepts(grammar, vocabulary, '{"a": 2}')


def resident() -> int:
    """Return this process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_compiled_grammars_use_less_memory_than_estimated(vocabulary: Vocabulary) -> None:
    grammars = GrammarCompiler(vocabulary)
    grammars.json_schema(ANY_OBJECT)
    before = resident()
    compiled = [grammars.json_schema(schemas.schema(seed)) for seed in range(200)]
    assert resident() - before < sum(grammar.size for grammar in compiled)


def test_compiled_grammars_beyond_memory_limit_are_dropped(vocabulary: Vocabulary) -> None:
    grammars = GrammarCompiler(vocabulary)
    large = [weakref.ref(grammars.json_schema({"enum": [f"{n}{'x' * 40_000}"]})) for n in range(10)]
    alive = [grammar is not None for grammar in (reference() for reference in large)]
    sizes = [grammar.size for grammar in (reference() for reference in large) if grammar is not None]
    assert (alive[0], alive[-1]) == (False, True)
    assert MAX_COMPILED_BYTES * 0.8 < sum(sizes) < MAX_COMPILED_BYTES
