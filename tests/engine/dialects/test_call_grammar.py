"""Constrained calls: each family's parser finds offered calls with valid arguments in any sampled output."""

import codecs
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import pytest
from hypothesis import settings
from msgspec.structs import replace
from numpy.typing import NDArray

from engine.chat_template.message import Call
from engine.constraint import Constraint
from engine.dialects.call_grammar import answer_grammar, bare_call_grammar, openings, triggers
from engine.dialects.dialect import Dialect, ReasoningTags
from engine.dialects.families import DIALECTS, GENERIC, with_generic
from engine.dialects.parser import Parser
from engine.gguf.header import Header, MetadataEntry, Value
from engine.json_schema import JSON
from engine.loader import model_file
from engine.notations.argument_schema import argument_schema
from engine.notations.call_format import Function
from engine.notations.parsed import (
    ParsedDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    merged,
)
from engine.notations.scanner import marks
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.source_compiler import MAX_CHARACTERS
from engine.structured_output.structural_tag import StructuralTag
from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE
from engine.tokenizer.vocabulary import Vocabulary
from tests.engine.chat_template.test_template import compiled
from tests.engine.dialects import test_dialect
from tests.engine.dialects.test_dialect import REAL
from tests.engine.grammar.ebnf.recognizer import Ebnf, accepted
from tests.engine.structured_output.test_compiler import accepts
from tests.rows import thinned

OBJECT = {"type": "object"}
FUNCTIONS: dict[str, Any] = {
    "now": {"type": "object", "properties": {}},
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "weather_at": {
        "type": "object",
        "properties": {
            "unit": {"type": "string", "enum": ["°C", "°F", "K", "Kelvin"]},
            "place": {
                "type": "object",
                "properties": {"north": {"type": "number"}, "east": {"type": "number"}, "label": {"type": "string"}},
                "required": ["north", "east"],
                "additionalProperties": False,
            },
            "days": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
            "loud": {"type": "boolean"},
            "note": {"type": ["string", "null"]},
        },
        "required": ["place", "loud"],
        "additionalProperties": False,
    },
    "anything": OBJECT,
    "größe": {"type": "object", "properties": {"wie groß": {"type": "string"}}, "required": ["wie groß"]},
    'say "it"\\': {"type": "object", "properties": {'q"': {"enum": ['"', 1, None]}}, "required": ['q"']},
    "tree": {
        "$defs": {
            "tree": {"type": "object", "properties": {"leaf": {"type": "string"}, "inner": {"$ref": "#/$defs/tree"}}}
        },
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/tree"}, "id": {"type": "string", "pattern": "^[a-z]{2,5}$"}},
        "required": ["root", "id"],
        "additionalProperties": False,
    },
    "mixed": {
        "type": "object",
        "properties": {
            "text": {"type": ["string", "boolean"]},
            "number": {"type": ["integer", "string"]},
            "any": {},
            "list": {"type": "array", "items": {"type": ["string", "null"]}, "maxItems": 1},
            "map": {"type": "object"},
            "flag": {"enum": ["on", "off"]},
            "more": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "array", "items": {"type": "number"}}]},
        },
        "required": ["number", "flag"],
        "additionalProperties": False,
    },
    "short": {
        "type": "object",
        "properties": {"code": {"type": "string", "minLength": 1, "maxLength": 4}, "kind": {"const": "x"}},
        "required": ["code", "kind"],
        "additionalProperties": False,
    },
}  # fmt: skip
PLAIN = [name for name in FUNCTIONS if re.fullmatch(r"[\w.-]+", name)]
EVERY = [*DIALECTS, GENERIC, with_generic(DIALECTS[1])]
TOLD = [*EVERY, *map(with_generic, DIALECTS)]
_MARKER = re.compile(r"\]<\]minimax\[>\[|<[^<>\s]+>|\[[A-Z_]+\]")


_INNER = (
    '<|"|>',
    "<escape>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|open|>",
    "<|close|>",
    "</parameter>",
)


class CompiledVocabulary(NamedTuple):
    """A vocabulary of bytes with its compiler, with or without the family's markers as control tokens."""

    vocabulary: Vocabulary
    grammars: GrammarCompiler


@cache
def byte_vocabulary(names: tuple[str, ...]) -> CompiledVocabulary:
    control = ("<|im_end|>", *names)
    values: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*BYTE_TO_UNICODE.values(), *control],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(control),
        "tokenizer.ggml.eos_token_id": 256,
    }
    entries = {key: MetadataEntry(value, type=0, start=0, end=0) for key, value in values.items()}
    vocabulary = Vocabulary(Header(3, 32, entries, tensors=(), size=0))
    return CompiledVocabulary(vocabulary, GrammarCompiler(vocabulary))


def family_vocabulary(dialect: Dialect, control: bool) -> CompiledVocabulary:
    form = dialect.call_format
    thinks = [marker for think in dialect.reasoning_tags for marker in (think.open, think.close)]
    phrases = (form.begin, form.call, form.end, form.answer, *thinks, *_INNER)
    names = {"<|return|>"} | {marker for phrase in phrases for marker in _MARKER.findall(phrase)}
    return byte_vocabulary(tuple(sorted(name for name in names if "$" not in name)) if control else ())


def functions(names: Sequence[str]) -> list[Function]:
    return [Function(name, FUNCTIONS[name]) for name in names]


TEXT_INPUT: JSON = {"type": "object", "properties": {"input": {"type": "string"}}}
OFFERED = {name: argument_schema(schema) for name, schema in FUNCTIONS.items()} | {"patch": argument_schema(TEXT_INPUT)}


_random = np.random.default_rng(5)
NOISE = (_random.normal(0, 1.5, 1 << 18) + _random.gumbel(size=1 << 18)).astype(np.float32)
"""Logits with Gumbel noise, so that `argmax` samples. Each draw reads a slice at a random offset, since new noise for
each draw took most of the time of these tests."""


def walk(
    constraint: Constraint,
    vocabulary: Vocabulary,
    random: np.random.Generator,
    likes: float | NDArray[np.float64],
    most: int = 600,
) -> list[int] | None:
    """Sample an output token by token, with a higher probability for closing tokens. None if it does not end."""
    if isinstance(likes, int | float):
        likes = closing(vocabulary, likes)
    likes[list(vocabulary.end_tokens)] = 2 * likes.max()
    liked, n = likes.astype(np.float32), len(vocabulary)
    tokens: list[int] = []
    for begin in random.integers(len(NOISE) - n, size=most).tolist():
        logits = NOISE[begin : begin + n] + (liked if len(tokens) > 5 else 0)
        constraint.apply_mask(logits)
        token = int(logits.argmax())
        if token in vocabulary.end_tokens and vocabulary.name_of(token) not in ("<|call|>", "<|return|>"):
            return tokens
        constraint.accept(token)
        tokens.append(token)
        if token in vocabulary.end_tokens:
            return tokens
    return None


def closing(vocabulary: Vocabulary, likes: float) -> NDArray[np.float64]:
    """Return the added logits of tokens that close a text or a call."""
    found = np.zeros(len(vocabulary))
    found[[ord(char) for char in '"}])>,:\n']] = likes
    found[256:] = likes
    return found


def read(dialect: Dialect, vocabulary: Vocabulary, tokens: Sequence[int], bare: bool = True) -> list[ParsedDelta]:
    spelled = marks(vocabulary.control_ids)
    parser, decoder = Parser(dialect, OFFERED, spelled, None, bare), codecs.getincrementaldecoder("utf-8")()
    found: list[ParsedDelta] = []
    for token in tokens:
        data = vocabulary.bytes_of(token)
        found += parser.feed(decoder.decode(data) if data else spelled[vocabulary.name_of(token)])
    return merged([*found, *parser.finish()])


def calls(deltas: Sequence[ParsedDelta]) -> list[tuple[str, Any]]:
    """Return the calls. All other deltas must be reasoning."""
    found: list[tuple[str, Any]] = []
    name = ""
    for each in deltas:
        match each:
            case ToolCallStart(name):
                pass
            case ToolCallArguments(text):
                found.append((name, json.loads(text)))
            case TextDelta(text):
                raise AssertionError(f"it wrote {text!r}")
            case ToolCallEnd() | ReasoningDelta():
                pass
    return found


def valid(name: str, arguments: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(FUNCTIONS[name]).is_valid(arguments))


def offered_to(dialect: Dialect) -> list[str]:
    return PLAIN if dialect.channels else list(FUNCTIONS)


CASES = [
    pytest.param(dialect, control, id=f"{dialect.name}{n}-{control}")
    for n, dialect in enumerate(EVERY)
    for control in (True, False)
]
ALTERNATING = [case for n, case in enumerate(CASES) if n % 4 in (0, 3)]
"""Cases of which one family has control tokens and the next has none, for laws that do not depend on both."""


@pytest.mark.parametrize(("dialect", "control"), CASES)
@pytest.mark.slow
def test_answer_grammar_yields_valid_offered_calls(dialect: Dialect, control: bool) -> None:
    vocabulary, grammars = family_vocabulary(dialect, control)
    random = np.random.default_rng(5)
    names = offered_to(dialect)
    alone = names if settings().max_examples >= 100 else names[control::2]  # all of them in .ci/run
    choices = [names, *([name] for name in alone)]
    ended = 0
    for choice in choices:
        grammar = grammars.lark(answer_grammar(dialect, functions(choice), grammars, max_calls=3))
        for bias in (2, 4, 5) if choice is names else (4,):
            tokens = walk(grammar.start(), vocabulary, random, bias)
            if tokens is not None:
                ended += 1
                assert_valid(calls(read(dialect, vocabulary, tokens)), choice, written(vocabulary, tokens))
    assert ended > len(choices) // 2


@pytest.mark.parametrize(("dialect", "control"), ALTERNATING)
@pytest.mark.slow
def test_portable_grammar_and_ebnf_allow_what_the_grammar_allows(dialect: Dialect, control: bool) -> None:
    vocabulary, grammars = family_vocabulary(dialect, control)
    random = np.random.default_rng(7)
    grammar = grammars.lark(answer_grammar(dialect, functions(offered_to(dialect)), grammars, max_calls=3))
    assert grammar.portable
    portable, ebnf = grammars.lark(grammar.portable), Ebnf(grammar.ebnf, vocabulary.name_of)
    for bias in (3, 4, 5):
        if (tokens := walk(grammar.start(), vocabulary, random, bias)) is not None:
            text = [token for token in tokens if token not in vocabulary.end_tokens]
            constraint = portable.start()
            assert all(map(constraint.try_accept, text)), written(vocabulary, text)
            assert accepted(ebnf, tokens, vocabulary), written(vocabulary, tokens)


def assert_valid(found: Sequence[tuple[str, Any]], names: Sequence[str], text: str, most: int = 3) -> None:
    assert 1 <= len(found) <= most, text
    assert [(name, arguments) for name, arguments in found if name not in names] == [], text
    assert [(name, arguments) for name, arguments in found if not valid(name, arguments)] == [], text


def written(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    pieces = [vocabulary.bytes_of(token) or vocabulary.name_of(token).encode() for token in tokens]
    return b"".join(pieces).decode()


@pytest.mark.parametrize("dialect", [pytest.param(dialect, id=f"{dialect.name}{n}") for n, dialect in enumerate(TOLD)])
def test_triggers_cover_every_call_that_parser_reads(dialect: Dialect) -> None:
    """Families whose template lists no functions are covered too, such as DeepSeek-R1's distillates."""
    grammars = family_vocabulary(dialect, False).grammars
    markers = {marker for marker, _ in triggers(dialect, functions(["weather"]), grammars)}
    assert {block.open.replace("$name", "weather") for block in dialect.blocks} <= markers


@pytest.mark.parametrize(("dialect", "control"), CASES)
@pytest.mark.slow
def test_triggers_continue_call_with_offered_function(dialect: Dialect, control: bool) -> None:
    vocabulary, grammars = family_vocabulary(dialect, control)
    random = np.random.default_rng(5)
    names = offered_to(dialect)
    found = triggers(dialect, functions(names), grammars, max_calls=3)
    assert {marker for marker, _ in found} >= {
        marker.replace("$name", names[0]) for marker in dialect.call_format.markers[:1]
    }
    tried, ended = set(), set()
    for marker, lark in found:
        forms = [form for form in (*dialect.alternatives, dialect.call_format) if marker in form.markers]
        form = next(iter(forms), dialect.call_format)  # with a name in its marker
        whole = re.sub(r"\$[a-z]+", "0", f"{form.begin}{form.call.partition('$name')[0]}".replace("~", ""))
        whole = whole[: whole.index(marker) + len(marker)] if marker in whole else marker
        begun = vocabulary.encode_prompt(whole.removeprefix(dialect.generation_prefix))
        tried.add(form.call)
        for n_walks, bias in enumerate((3, 5, 4, 6)):
            if n_walks >= 2 and form.call in ended:
                break
            tokens = walk(grammars.lark(lark).start(), vocabulary, random, bias)
            if tokens is not None:
                ended.add(form.call)
                text = written(vocabulary, tokens)
                if not (form.no_call and f'"{form.no_call}"' in text):
                    assert_valid(calls(read(dialect, vocabulary, [*begun, *tokens])), names, text)
    assert ended == tried


def test_triggers_allow_words_for_no_call_which_parser_ignores() -> None:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == "granite-20b")
    vocabulary, grammars = family_vocabulary(dialect, True)
    (rest,) = (rest for marker, rest in triggers(dialect, functions(["now"]), grammars) if marker == "<function_call>")
    assert accepts(grammars.lark(rest), vocabulary, ' {"name": "no_function", "arguments": {}}')
    assert not accepts(grammars.lark(rest), vocabulary, ' {"name": "none", "arguments": {}}')
    demanded = answer_grammar(dialect, functions(["now"]), grammars)
    assert not accepts(grammars.lark(demanded), vocabulary, '<function_call>{"name": "no_function", "arguments": {}}')


@pytest.mark.parametrize("name", ["now", "no", "no_fun", "no_function_at_all"])
@pytest.mark.parametrize(
    ("family", "begin"), [("granite-20b", ' {"name": "'), ("command-r-plus", '\n[{"tool_name": "')]
)
def test_triggers_of_family_with_words_for_no_call_allow_every_call(family: str, begin: str, name: str) -> None:
    """The words must not be one terminal: the lexer would take them for the beginning of every call."""
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == family)
    vocabulary, grammars = family_vocabulary(dialect, True)
    nothing = Function(name, {"properties": {}})
    rest = next(
        rest for marker, rest in triggers(dialect, [nothing], grammars) if marker in dialect.call_format.markers
    )
    end = '", "arguments": {}}' if family == "granite-20b" else '", "parameters": {}}]```'
    assert accepts(grammars.lark(rest), vocabulary, f"{begin}{name}{end}")
    assert accepts(grammars.lark(rest), vocabulary, f"{begin}{dialect.call_format.no_call}{end}")
    assert not accepts(grammars.lark(rest), vocabulary, f"{begin}other{end}")


FORMAT: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"enum": ["weather", "<tool_call>", "<think>", "[ARGS]"]}, "arguments": {"type": "object"}},
    "required": ["name", "arguments"],
}
"""Format whose texts look like calls and may contain markers."""


UNMARKED = [dialect for dialect in EVERY if dialect.allows_bare_json]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", thinned({dialect.name: dialect for dialect in UNMARKED}))
@pytest.mark.parametrize("before", ['{{"name": {}', '\n{{ "type": "function",\n"function":{}', ' [\n{{"name":{}'])
def test_bare_call_grammar_constrains_call_from_name_on(dialect: Dialect, before: str) -> None:
    vocabulary, grammars = family_vocabulary(dialect, True)
    random = np.random.default_rng(5)
    for name in offered_to(dialect):
        begun = before.format(json.dumps(name, ensure_ascii=False))
        rest = bare_call_grammar(dialect, functions([name])[0], grammars)
        assert rest is not None
        tokens = walk(grammars.lark(rest).start(), vocabulary, random, 5)
        if tokens is not None:
            ((called, arguments),) = calls(read(dialect, vocabulary, [*vocabulary.encode(begun), *tokens]))
            assert called == name
            assert valid(called, arguments)


@pytest.mark.parametrize(
    "dialect", [pytest.param(dialect, id=dialect.name) for dialect in EVERY if not dialect.allows_bare_json]
)
def test_bare_call_grammar_of_marked_dialect_is_none(dialect: Dialect) -> None:
    assert bare_call_grammar(dialect, functions(["weather"])[0], family_vocabulary(dialect, True).grammars) is None


@pytest.mark.parametrize(("dialect", "control"), ALTERNATING)
@pytest.mark.slow
def test_answer_grammar_with_format_yields_format_or_calls(dialect: Dialect, control: bool) -> None:
    vocabulary, grammars = family_vocabulary(dialect, control)
    dialect = replace(dialect, reasoning_tags=(*dialect.reasoning_tags, ReasoningTags("<think>", "</think>")))
    random = np.random.default_rng(6)
    for names in (["now", "weather"], []):
        grammar = grammars.lark(answer_grammar(dialect, functions(names), grammars, max_calls=3, format_=FORMAT))
        kinds: set[str] = set()
        wanted = {"format", "calls"} if names else {"format"}
        for n_walks, bias in enumerate((2, 3.5, 5) * 16):
            if n_walks >= 6 and kinds == wanted:  # calls are rarer
                break
            tokens = walk(grammar.start(), vocabulary, random, bias)
            if tokens is None:
                continue
            found = [
                each for each in read(dialect, vocabulary, tokens, bare=False) if not isinstance(each, ReasoningDelta)
            ]
            match found:
                case [TextDelta(text)]:
                    kinds.add("format")
                    assert jsonschema.Draft202012Validator(FORMAT).is_valid(json.loads(text))
                case _:
                    kinds.add("calls")
                    assert_valid(calls(found), names, written(vocabulary, tokens))
        assert kinds == wanted


PAST: dict[str, Any] = {
    "civet": {
        "type": "object",
        "properties": {
            "at": {"type": "string"},
            "n": {"type": "integer"},
            "m": {"type": "object", "properties": {"k": {"type": "array", "items": {"type": ["string", "boolean"]}}}},
        },
    },
    "dugong": {"type": "object", "properties": {"x": {"type": "string"}}},
}
BOTH = [
    Call("1", "civet", '{"at": "gnu\\n<x 1 é", "n": 3, "m": {"k": [true, "p"]}}'),
    Call("2", "dugong", '{"x": "dug"}'),
]


@pytest.mark.parametrize("file", thinned({file.stem: file for file in REAL}))
def test_answer_grammar_allows_calls_that_real_template_renders(file: Path) -> None:
    template = compiled(file.read_text())
    if template.capabilities.call_fields is None:
        pytest.skip("it has no calls")
    whole, _ = test_dialect.written(template, BOTH if template.capabilities.parallel else BOTH[:1])
    for think in template.dialect.reasoning_tags:
        whole = whole.rpartition(f"REASON{think.close}")[2]
    form = template.dialect.call_format
    opening = re.split("[~$]", f"{'' if form.marker_optional else form.begin}{form.call}")[0]
    text = test_dialect.answer_of(whole)[whole.index(opening) :] if opening in whole else whole
    text = text.removeprefix(template.dialect.generation_prefix)
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.lark(answer_grammar(template.dialect, [Function(name, PAST[name]) for name in PAST], grammars))
    text = re.split(r"TEXT|<.close.>message|<.start.>functions", text)[0].rstrip()
    assert accepts(grammar, vocabulary, text)


@pytest.mark.parametrize("dialect", [pytest.param(dialect, id=dialect.name) for dialect in DIALECTS])
def test_answer_grammar_with_real_vocabulary_yields_valid_calls(smollm2: Path, dialect: Dialect) -> None:
    """Tokens of a real vocabulary span several parts of a call."""
    vocabulary, grammars = real(smollm2)
    random = np.random.default_rng(5)
    names = offered_to(dialect)
    grammar = grammars.lark(answer_grammar(dialect, functions(names), grammars, max_calls=3))
    ended = 0
    for _ in range(6):
        tokens = walk(grammar.start(), vocabulary, random, real_closing(smollm2), most=200)
        if tokens is not None:
            ended += 1
            assert_valid(calls(read(dialect, vocabulary, tokens)), names, written(vocabulary, tokens))
        if ended == 2:
            break
    assert ended


@cache
def real(path: Path) -> CompiledVocabulary:
    vocabulary = model_file.read(path)[1]
    return CompiledVocabulary(vocabulary, GrammarCompiler(vocabulary))


@cache
def real_closing(path: Path) -> NDArray[np.float64]:
    """Return the added logits of tokens with a character that closes a text or a call."""
    vocabulary = real(path).vocabulary
    texts = [vocabulary.bytes_of(id_) for id_ in range(len(vocabulary))]
    return np.array([6.0 * any(mark in text for mark in (b'"', b"}", b"]", b">", b":", b")")) for text in texts])


def test_answer_grammar_with_referenced_text_writes_it_verbatim() -> None:
    dialect = next(dialect for dialect in DIALECTS if dialect.name == "coder")
    unit: JSON = {"type": "string", "enum": ["1", "2"]}
    schema: JSON = {
        "$defs": {"unit": unit},
        "type": "object",
        "properties": {"unit": {"$ref": "#/$defs/unit"}},
        "required": ["unit"],
    }
    vocabulary, grammars = byte_vocabulary(())
    text = "<tool_call>\n<function=f>\n<parameter=unit>\n2\n</parameter>\n</function>\n</tool_call>"
    assert accepts(grammars.lark(answer_grammar(dialect, [Function("f", schema)], grammars)), vocabulary, text)
    parser = Parser(dialect, {"f": argument_schema(schema)})
    assert merged([*parser.feed(text), *parser.finish()])[1] == ToolCallArguments('{"unit": "2"}')


ORDERS = {"abc": True, "cba": True, "ba": True, "b": True, "": False, "ac": False, "bab": False, "bb": False}
"""Order of the parameters a, b and c, of which only b is required -> True if it is allowed."""
TAGGED = {"coder": "<parameter=$>\n1\n</parameter>\n", "lfm": "$=1,"}


@pytest.mark.parametrize(("order", "taken"), ORDERS.items())
@pytest.mark.parametrize("name", TAGGED)
def test_answer_grammar_with_few_parameters_allows_any_order(name: str, order: str, taken: bool) -> None:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == name)
    schema: JSON = {"type": "object", "properties": {key: {"type": "integer"} for key in "abc"}, "required": ["b"]}
    form, arguments = dialect.call_format, "".join(TAGGED[name].replace("$", key) for key in order).rstrip(",\n")
    call = f"{form.begin}{form.call}{form.end}".replace("$name", "f").replace("$arguments", arguments)
    text = call.replace("~", "\n" if name == "coder" and order else "")
    vocabulary, grammars = byte_vocabulary(())
    assert accepts(grammars.lark(answer_grammar(dialect, [Function("f", schema)], grammars)), vocabulary, text) == taken


MANY: JSON = {
    "type": "object",
    "properties": {key: {"type": "integer"} for key in "abcdefgh"},
    "required": [*"bdf"],
}


@pytest.mark.parametrize(
    ("order", "taken"),
    [
        ("bdf", True),
        ("fdb", True),
        ("hfaedgcb", True),
        ("fhdhab", True),  # the reader drops the second h
        ("abcdefgh", True),
        ("acegh", False),
        ("bdac", False),
        ("bdfd", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("name", TAGGED)
def test_answer_grammar_with_many_parameters_allows_any_order_with_all_required(
    name: str, order: str, taken: bool
) -> None:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == name)
    form, arguments = dialect.call_format, "".join(TAGGED[name].replace("$", key) for key in order).rstrip(",\n")
    call = f"{form.begin}{form.call}{form.end}".replace("$name", "f").replace("$arguments", arguments)
    text = call.replace("~", "\n" if name == "coder" and order else "")
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.lark(answer_grammar(dialect, [Function("f", MANY)], grammars))
    assert accepts(grammar, vocabulary, text) == taken
    if taken:
        parser = Parser(dialect, {"f": argument_schema(MANY)})
        _, arguments_, _ = merged([*parser.feed(text), *parser.finish()])
        assert isinstance(arguments_, ToolCallArguments)
        assert list(json.loads(arguments_.text)) == list(dict.fromkeys(order))


UNIONS: dict[str, tuple[JSON, dict[str, JSON]]] = {
    "text or boolean": (
        {"type": ["string", "boolean"]},
        {"so": "so", "true": True, "3": "3", "nullable": "nullable", '"true"': "true", "null": "null", "[1": "[1"},
    ),
    "text or integer": (
        {"type": ["integer", "string"]},
        {"12": 12, '"12"': "12", "twelve": "twelve", "true": "true", "None": "None", "{x": "{x"},
    ),
    "text or list": (
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
        {"a, b": "a, b", "[1, 2]": [1, 2], '"[1]"': "[1]", "True": "True"},
    ),
    "text or object or null": (
        {"type": ["string", "object", "null"]},
        {"so": "so", '{"a": [true]}': {"a": [True]}, "null": None, '"null"': "null", "12": "12"},
    ),
    "words or boolean": (
        {"type": ["string", "boolean"], "enum": ["a", "b", True]},
        {"a": "a", "true": True, '"b"': "b"},
    ),
    "words without a type": ({"enum": ["a", "b"]}, {"a": "a"}),
    "anything": ({}, {"so": "so", "12": 12, "null": None, '{"a": 1}': {"a": 1}, '"12"': "12", "false": False}),
}
"""Schema -> contents of tags, and the values that they have."""
NO_UNIONS = {
    "text or boolean": ["'a'", '"a'],
    "text or integer": ["12 apples", "1.5"],
    "text or list": ["[a]", "[true]"],
    "words or boolean": ["c", "false"],
    "words without a type": ["c", '"a"'],
    "anything": ["12 apples", "{a"],
}
"""Contents that grammars forbid, since the parser reads them as something else."""
TAGGED_TEXT = {
    "coder": "<tool_call>\n<function=f>\n<parameter=x>\n$\n</parameter>\n</function>\n</tool_call>",
    "glm": "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>$</arg_value>\n</tool_call>",
    "seed": "<seed:tool_call>\n<function=f>\n<parameter=x>$</parameter>\n</function>\n</seed:tool_call>",
    "minicpm": '<function name="f"><param name="x">$</param></function>',
    "minimax-3": ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="f">]<]minimax[>[<x>$]<]minimax[>[</x>'
    "]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>",
}
SAMPLED_TAGS = [
    name if name in ("coder", "glm") else pytest.param(name, marks=pytest.mark.slow) for name in TAGGED_TEXT
]


def content_of_tags(name: str, schema: JSON, content: str) -> tuple[bool, JSON]:
    """Return whether the grammar allows a parameter's content, and the parameter's value as the parser reads it."""
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == name)
    whole: JSON = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    text = TAGGED_TEXT[name].replace("$", content)
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.lark(answer_grammar(dialect, [Function("f", whole)], grammars))
    parser = Parser(dialect, {"f": argument_schema(whole)})
    _, arguments, _ = merged([*parser.feed(text), *parser.finish()])
    assert isinstance(arguments, ToolCallArguments)
    return accepts(grammar, vocabulary, text), json.loads(arguments.text)["x"]


@pytest.mark.parametrize(
    ("schema", "content", "value"),
    [(schema, content, value) for schema, contents in UNIONS.values() for content, value in contents.items()],
)
@pytest.mark.parametrize("name", SAMPLED_TAGS)
def test_text_or_other_type_needs_no_quotes_in_tags(name: str, schema: JSON, content: str, value: JSON) -> None:
    taken, found = content_of_tags(name, schema, content)
    assert taken
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("schema", "content"), [(UNIONS[name][0], content) for name, contents in NO_UNIONS.items() for content in contents]
)
@pytest.mark.parametrize("name", SAMPLED_TAGS)
def test_text_that_reads_as_other_type_is_forbidden_in_tags(name: str, schema: JSON, content: str) -> None:
    assert not content_of_tags(name, schema, content)[0]


PYTHON: dict[str, tuple[JSON, JSON, list[str]]] = {
    "boolean": ({"type": "boolean"}, True, ["True", "true"]),
    "null": ({"type": ["integer", "null"]}, None, ["None", "null"]),
    "list": (
        {"type": "array", "items": {"type": ["string", "boolean", "null"]}},
        ["p", True, None],
        ["['p', True, None]", '["p", true, null]'],
    ),
    "object": (
        {"type": "object", "properties": {"k": {"type": "string"}, "n": {"type": "number"}}, "required": ["k"]},
        {"k": "it's \n\\ é", "n": -1.5},
        ["""{'k': "it's \\n\\\\ é", 'n': -1.5}""", """{"k": "it's \\n\\\\ é", "n": -1.5}"""],
    ),
    "any object": (
        {"type": "object"},
        {"a b": [1, {"c": False}], "d": {}},
        ["{'a b': [1, {'c': False}], 'd': {}}", '{"a b": [1, {"c": false}], "d": {}}'],
    ),
    "list of words": ({"type": "array", "items": {"enum": ["a", 2]}}, ["a", 2], ["['a', 2]"]),
}
"""Schema, value, and its spellings."""
NO_PYTHON: list[tuple[JSON, str]] = [
    ({"type": "boolean"}, "TRUE"),
    ({"type": "array", "items": {"type": "string"}}, "[True]"),
    ({"type": "array", "items": {"type": "string", "maxLength": 2}}, "['abc']"),
    ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, "['a', 'b']"),
    ({"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]}, "{}"),
    ({"type": "object", "properties": {"k": {"type": "integer"}}}, "{'k': 1.5}"),
    ({"type": "object"}, "{'k': '\\ud800'}"),
    ({"type": "object"}, "{'k': }"),
]


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [(schema, value, text) for schema, value, texts in PYTHON.values() for text in texts],
)
@pytest.mark.parametrize("name", ["seed", "minicpm"])
def test_values_in_tags_may_be_written_as_in_python(name: str, schema: JSON, value: JSON, text: str) -> None:
    assert content_of_tags(name, schema, text) == (True, value)


@pytest.mark.parametrize(("schema", "text"), NO_PYTHON)
@pytest.mark.parametrize("name", ["seed", "minicpm"])
def test_invalid_python_in_tags_is_forbidden(name: str, schema: JSON, text: str) -> None:
    assert not content_of_tags(name, schema, text)[0]


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [(schema, value, text) for schema, value, texts in PYTHON.values() for text in texts],
)
def test_values_in_python_calls_may_be_written_as_in_python(schema: JSON, value: JSON, text: str) -> None:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == "lfm")
    whole: JSON = {"type": "object", "properties": {"x": schema}}
    call = f"<|tool_call_start|>[f(x={text})]<|tool_call_end|>"
    vocabulary, grammars = byte_vocabulary(())
    assert accepts(grammars.lark(answer_grammar(dialect, [Function("f", whole)], grammars)), vocabulary, call)
    parser = Parser(dialect, {"f": argument_schema(whole)})
    _, arguments, _ = merged([*parser.feed(call), *parser.finish()])
    assert isinstance(arguments, ToolCallArguments)
    assert json.loads(arguments.text) == {"x": value}


def test_answer_grammar_of_many_functions_stays_small() -> None:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == "coder")
    keys = [f"parameter_{n}" for n in range(4)]
    many = [
        Function(f"function_{n}", {"properties": {f"{key}_{n}": {"type": "string"} for key in keys}}) for n in range(60)
    ]
    assert len(answer_grammar(dialect, many, byte_vocabulary(()).grammars)) < MAX_CHARACTERS


OPTIONAL: dict[str, Any] = {
    "list": {"type": ["string", "null"]},
    "Pydantic's": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    "reference": {"$ref": "#/$defs/note"},
}
OPTIONAL_VALUES = {
    "so": "so",
    " two\nlines ": " two\nlines ",
    "": "",
    "12": "12",
    "true": "true",
    '{"a": [1]}': '{"a": [1]}',
    '["a': '["a',
    "nullable": "nullable",
    'say "no"': 'say "no"',
    "null": None,
    "\nnull ": None,
    "None": None,
    '"null"': "null",
    '"None"': "None",
    '"\\"so\\""': '"so"',
    '"</parameter>"': "</parameter>",
}
"""Texts between tags -> values."""


@pytest.mark.parametrize("schema", OPTIONAL.values(), ids=OPTIONAL)
@pytest.mark.parametrize(("text", "value"), OPTIONAL_VALUES.items())
@pytest.mark.parametrize("name", ["coder", "glm", "minimax-3"])
@pytest.mark.slow
def test_optional_text_is_written_and_read_without_quotes(
    name: str, schema: dict[str, Any], text: str, value: str | None
) -> None:
    dialect = next(dialect for dialect in DIALECTS if dialect.name == name)
    whole: JSON = {"$defs": {"note": OPTIONAL["list"]}, "type": "object", "properties": {"note": schema}}
    written = {
        "coder": f"<tool_call>\n<function=f>\n<parameter=note>\n{text}\n</parameter>\n</function>\n</tool_call>",
        "glm": f"<tool_call>f\n<arg_key>note</arg_key>\n<arg_value>{text}</arg_value>\n</tool_call>",
        "minimax-3": '@<tool_call>\n@<invoke name="f">@<note>' + text + "@</note>@</invoke>\n@</tool_call>",
    }[name].replace("@", "]<]minimax[>[")
    for pieces in test_dialect.cuts(written) if schema is OPTIONAL["list"] else [[written]]:
        parser = Parser(dialect, {"f": argument_schema(whole)})
        found = merged([*(each for piece in pieces for each in parser.feed(piece)), *parser.finish()])
        assert calls(found) == [("f", {"note": value})]
    vocabulary, grammars = family_vocabulary(dialect, control=False)
    grammar = grammars.lark(answer_grammar(dialect, [Function("f", whole)], grammars))
    assert accepts(grammar, vocabulary, written)


LISTED = [
    (
        ["a", '"b"', "null", None],
        {"a": True, '"b"': False, '"\\"b\\""': True, '"null"': True, "null": True, "c": False},
    ),
    (["a", "b"], {"a": True, "null": False, '"a"': True}),
]


@pytest.mark.parametrize(("values", "taken"), LISTED)
def test_optional_text_with_enum_allows_listed_values_only(values: list[JSON], taken: dict[str, bool]) -> None:
    dialect = next(dialect for dialect in DIALECTS if dialect.name == "coder")
    schema: JSON = {"type": "object", "properties": {"note": {"type": ["string", "null"], "enum": values}}}
    vocabulary, grammars = family_vocabulary(dialect, control=False)
    grammar = grammars.lark(answer_grammar(dialect, [Function("f", schema)], grammars))
    call = "<tool_call>\n<function=f>\n<parameter=note>\n{}\n</parameter>\n</function>\n</tool_call>"
    assert {text: accepts(grammar, vocabulary, call.format(text)) for text in taken} == taken


@pytest.mark.parametrize(
    ("parameter", "taken", "value"),
    [
        ('string="true">null', True, "null"),
        ('string="true">"so"', True, '"so"'),
        ('string="false">null', True, None),
        ('string="false">so', False, "so"),
    ],
)
def test_optional_text_with_written_type_is_verbatim(parameter: str, taken: bool, value: str | None) -> None:
    dialect = next(dialect for dialect in DIALECTS if dialect.name == "deepseek-dsml")
    schema: JSON = {"type": "object", "properties": {"note": {"type": ["string", "null"]}}}
    call = f'<@invoke name="f">\n<@parameter name="note" {parameter}</@parameter>\n</@invoke>'
    text = f"<@function_calls>\n{call}\n</@function_calls>".replace("@", "｜DSML｜")
    parser = Parser(dialect, {"f": argument_schema(schema)})
    assert calls(merged([*parser.feed(text), *parser.finish()])) == [("f", {"note": value})]
    vocabulary, grammars = family_vocabulary(dialect, control=False)
    assert accepts(grammars.lark(answer_grammar(dialect, [Function("f", schema)], grammars)), vocabulary, text) == taken


@pytest.mark.parametrize(("text", "taken"), [("<parameter", True), ("<parameter=", False), ("</parameter>", False)])
def test_text_between_tags_excludes_closing_tags(text: str, taken: bool) -> None:
    dialect = next(dialect for dialect in DIALECTS if dialect.name == "coder")
    vocabulary, grammars = family_vocabulary(dialect, control=False)
    grammar = grammars.lark(answer_grammar(dialect, functions(["weather"]), grammars))
    written = f"<tool_call>\n<function=weather>\n<parameter=city>\n{text}\n</parameter>\n</function>\n</tool_call>"
    assert accepts(grammar, vocabulary, written) == taken


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize(
    "dialect", thinned({f"{dialect.name}-{number}": dialect for number, dialect in enumerate(TOLD)})
)
def test_openings_occur_in_every_call(dialect: Dialect, control: bool) -> None:
    vocabulary = family_vocabulary(dialect, control).vocabulary
    for form in (dialect.call_format, *dialect.alternatives):
        written = f"{form.begin}{form.call}".replace("$name", "weather").replace("$id", "1").replace("$number", "0")
        text = written.replace("$place", "functions.").replace("~", "").removeprefix(dialect.generation_prefix)
        state = StructuralTag(
            vocabulary, forbidden=openings(dialect, ["weather"]), prefix=dialect.generation_prefix
        ).start()
        for token in vocabulary.encode_prompt(text):
            logits = np.zeros(len(vocabulary), np.float32)
            state.apply_mask(logits)
            if logits[token] != 0:
                assert np.isfinite(logits).any()
                break
            state.accept(token)
        else:
            pytest.fail(f"{text} was written")


HARMONY = {
    "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}<|call|>": True,
    "<|channel|>commentary to=functions.now json<|message|>{}<|call|>": True,
    "<|channel|>commentary to=functions.now<|message|>{}<|call|>": True,
    "<|channel|>commentary to=now<|message|>{}<|call|>": True,
    "<|channel|>analysis to=functions.now<|message|>{}<|call|>": False,
    " to=functions.now<|channel|>commentary <|constrain|>json<|message|>{}<|call|>": True,
    " to=functions.now<|channel|>commentary json<|message|>{}<|call|>": True,
    "<|channel|>commentary to=functions.then<|message|>{}<|call|>": False,
    "<|channel|>commentary<|message|>{}<|call|>": False,
}


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize(("text", "taken"), HARMONY.items())
def test_harmony_call_allows_header_variants(text: str, taken: bool, control: bool) -> None:
    """gpt-oss sometimes omits `<|constrain|>json`, and its template writes the recipient before the channel."""
    (harmony,) = (dialect for dialect in DIALECTS if dialect.name == "harmony")
    vocabulary, grammars = family_vocabulary(harmony, control)
    constraint = grammars.lark(answer_grammar(harmony, functions(["now"]), grammars)).start()
    tokens = vocabulary.encode_prompt(text)
    assert all(map(constraint.try_accept, tokens[:-1])) == taken
    if taken:
        assert calls(read(harmony, vocabulary, tokens)) == [("now", {})]


@pytest.mark.parametrize("behind", ["", ', "id": "call_1"', ', "id": "000000001"', ', "name": "now"', ', "id": ""'])
@pytest.mark.parametrize("name", ["mistral-list", "tool-calls-list"])
def test_answer_grammar_allows_id_after_arguments(name: str, behind: str) -> None:
    """The templates of Mistral-Nemo and Apriel write it."""
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == name)
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.lark(answer_grammar(dialect, functions(["now"]), grammars))
    text = f'{dialect.call_format.begin}{{"name": "now", "arguments": {{}}{behind}}}{dialect.call_format.end}'.replace(
        "~", ""
    )
    assert accepts(grammar, vocabulary, text) == (behind.partition('"')[2] not in ('name": "now"', 'id": ""'))


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ("loud=True, note=None, city='so'", True),
        ('loud=false, note=null, city="so"', True),
        ("loud=False, note='it\\'s', city='a, b)'", True),
        ("loud=true, note=null, city='a\n\\nb\r\0'", True),
        ("loud=None, note=None, city='so'", False),
        ("loud=True, note=1, city='so'", False),
        ("loud=True, note=None, city=True", False),
        ("loud=True, note=None, city='so", False),
        ("loud=True, note=None, city='so', kind=\"x\"", True),
        ("loud=True, note=None, city='so', kind=\"z\"", False),
    ],
)
def test_pythonic_arguments_allow_python_literals_that_parser_reads(arguments: str, taken: bool) -> None:
    """LFM2 writes `True`, `None`, and texts in single quotes."""
    (lfm,) = (dialect for dialect in DIALECTS if dialect.name == "lfm")
    schema: Any = {
        "type": "object",
        "properties": {
            "loud": {"type": "boolean"},
            "note": {"type": ["string", "null"], "description": "A note."},
            "city": {"type": "string"},
            "kind": {"type": "string", "enum": ["x", "y"]},
        },
        "required": ["loud", "note", "city"],
        "additionalProperties": False,
    }
    vocabulary, grammars = family_vocabulary(lfm, control=True)
    grammar = grammars.lark(answer_grammar(lfm, [Function("f", schema)], grammars))
    text = f"<|tool_call_start|>[f({arguments})]<|tool_call_end|>"
    assert accepts(grammar, vocabulary, text) == taken
    if taken:
        parser = Parser(lfm, {"f": argument_schema(schema)})
        found = [*parser.feed(text), *parser.finish()]
        jsonschema.validate(
            json.loads("".join(each.text for each in found if isinstance(each, ToolCallArguments))), schema
        )
