"""Calls without a marker: every call that the parser reads is constrained from its name on, in any spacing."""

import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.dialects.call_grammar import bare_call_grammar
from engine.dialects.dialect import Dialect
from engine.dialects.families import DIALECTS, GENERIC
from engine.dialects.parser import Parser
from engine.gguf.header import Header, MetadataEntry, Value
from engine.json_schema import JSON
from engine.notations.argument_schema import argument_schema
from engine.notations.call_format import Function
from engine.notations.parsed import ParsedDelta, TextDelta, ToolCallEnd, ToolCallStart, merged
from engine.notations.scanner import marks
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.specs import BareCallTrigger
from engine.structured_output.structural_tag import StructuralTag
from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE
from engine.tokenizer.detokenizer import Detokenizer
from engine.tokenizer.vocabulary import Vocabulary
from tests.engine.dialects.test_call_grammar import calls

LONG = (
    '{"', '":', '":"', '": "', '", "', '","', '"}', '"}}', '",', '"name": "', '"name":"', '{"name": "add"}', 'add"}',
    '"add"', '"add"}', '"add",{"', ':"add","a', '"\t', '"\n}', '"\t,\t"', '\\"', '\\"}', 'é"}', '};{"', '": {"a": 3}}',
    '","arguments":{}}', 'dd","parameters":{}}', '"a\\u0064d"}', '"x":"', "<call>", '<call>"',
)  # fmt: skip
"""Tokens that continue past a name, and tokens that don't."""
CONTROL = ("<|end|>", "<|mark|>")
LLAMA = next(dialect for dialect in DIALECTS if dialect.name == "llama")
BARE_DIALECTS = [replace(dialect, blocks=(), ignored_markers=()) for dialect in (GENERIC, LLAMA)]
"""Dialects without their markers."""


def schema(*values: JSON) -> JSON:
    return {
        "type": "object",
        "properties": {"a": {"enum": [*values]}},
        "required": ["a"],
        "additionalProperties": False,
    }


SCHEMAS = {"add": schema(1, 2), "addison": schema(3), "größe": schema(4), 'say "it"\\': schema(5), '"': schema(6)}


def small_vocabulary() -> Vocabulary:
    texts = ["".join(BYTE_TO_UNICODE[byte] for byte in text.encode()) for text in LONG]
    values: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*(BYTE_TO_UNICODE[byte] for byte in range(256)), *texts, *CONTROL],
        "tokenizer.ggml.token_type": [1] * (256 + len(LONG)) + [3] * len(CONTROL),
        "tokenizer.ggml.eos_token_id": 256 + len(LONG),
    }
    entries = {key: MetadataEntry(value, type=0, start=0, end=0) for key, value in values.items()}
    return Vocabulary(Header(3, 32, entries, tensors=(), size=0))


VOCABULARY = small_vocabulary()
MARK = VOCABULARY.control_ids["<|mark|>"]
SPELLED = marks(VOCABULARY.control_ids)
GRAMMARS = GrammarCompiler(VOCABULARY)
TAGS = {
    dialect.name: StructuralTag(
        VOCABULARY,
        bare_calls=[
            BareCallTrigger(name, GRAMMARS.lark(bare_call_grammar(dialect, Function(name, parameters), GRAMMARS) or ""))
            for name, parameters in SCHEMAS.items()
        ],
    )
    for dialect in BARE_DIALECTS
}


Part: TypeAlias = str | bytes | int
BRACES: list[Part] = ["{", "\n {", "\u2003{", ";{", "[{", " [\n{", ", {", "[[{"]
BEFORE: list[Part] = [
    ",", " ", "\t", '"type": "function",', '"id": null ,', '"id": [1, {"name": "add"}],', '"type": {}, ',
    '"id": "' + "x" * 300 + '",',
]  # fmt: skip
KEYS: list[Part] = ['"name"', '"tool_name"', '"function"', '"na\\u006de"']
COLONS: list[Part] = [":", ": ", " :\n", "\t", ""]
NAMES: list[Part] = [
    '"add"', '"a\\u0064d"', '"addison"', '"größe"', '"gr\\u00f6ße"', '"say \\"it\\"\\\\"', '"\\""',
    "add", '"none"', '"ad',
]  # fmt: skip
AFTER: list[Part] = [
    "}", "]", ":", '"', "\\", ",", ";", "null", '"x"', "é", 'd"', '"parameters"', '"arguments": {}', '{"a": 3}',
    '{"name": "add"', '{"name": "add", "parameters": {"a": 7}}', "<call>", b"\xc3", b"\xff", MARK,
]  # fmt: skip
ANY = [*BRACES, *BEFORE, *KEYS, *COLONS, *NAMES, *AFTER]


def several(parts: Sequence[Part], least: int, most: int) -> st.SearchStrategy[list[Part]]:
    return st.lists(st.sampled_from(parts), min_size=least, max_size=most)


def joined(*lists: st.SearchStrategy[list[Part]]) -> st.SearchStrategy[list[Part]]:
    return st.tuples(*lists).map(lambda found: [part for parts in found for part in parts])


LIKE_A_CALL = joined(
    several(BRACES, 1, 1),
    several(BEFORE, 0, 3),
    *(several(parts, 1, 1) for parts in (KEYS, COLONS, NAMES)),
    several(ANY, 0, 4),
)
ANSWERS = LIKE_A_CALL | joined(LIKE_A_CALL, LIKE_A_CALL) | several(ANY, 0, 14)


class TagAndParser:
    """One answer, as the tag constrains it and as the parser reads it."""

    def __init__(self, dialect: Dialect) -> None:
        self.state = TAGS[dialect.name].start()
        self._parser = Parser(dialect, {name: argument_schema(schema) for name, schema in SCHEMAS.items()}, SPELLED)
        self._text = Detokenizer()
        self.found: list[ParsedDelta] = []
        self.taken: list[int] = []
        self.constrained = False

    @property
    def calling(self) -> bool:
        """True while the parser reads a call."""
        last = next((each for each in reversed(self.found) if isinstance(each, ToolCallStart | ToolCallEnd)), None)
        return isinstance(last, ToolCallStart)

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """Complete calls."""
        return calls(merged([each for each in self.found if not isinstance(each, TextDelta)]))

    def allowed(self) -> list[int]:
        logits = np.zeros(len(VOCABULARY), np.float32)
        self.state.apply_mask(logits)
        return [id_ for id_ in np.flatnonzero(logits == 0).tolist() if id_ not in VOCABULARY.end_tokens]

    def write(self, part: Part, chance: random.Random) -> None:
        """Write a part in random tokens. If the tag forbids its tokens, write an allowed one instead."""
        data = part.encode() if isinstance(part, str) else part
        while data:
            ids = self.allowed()
            fitting = [id_ for id_ in ids if (data == id_ if isinstance(data, int) else self._fits(id_, data))]
            assert fitting or isinstance(data, int) or self.constrained, "free text can be written"
            token = chance.choice(fitting or ids)
            self.take(token)
            data = b"" if isinstance(data, int) else data[len(VOCABULARY.bytes_of(token)) if fitting else 1 :]

    @staticmethod
    def _fits(id_: int, data: bytes) -> bool:
        return bool(text := VOCABULARY.bytes_of(id_)) and data.startswith(text)

    def take(self, token: int) -> None:
        self.taken.append(token)
        self.state.accept(token)
        self.constrained = not self.state.mask_ready
        text = VOCABULARY.bytes_of(token)
        self.found += self._parser.feed(
            self._text.feed(text) if text else self._text.insert_marker(SPELLED[VOCABULARY.name_of(token)])
        )


@settings(max_examples=30)  # each takes 40 ms
@given(st.sampled_from(BARE_DIALECTS), ANSWERS, st.randoms(use_true_random=False))
@pytest.mark.slow
def test_bare_call_that_parser_reads_is_constrained_from_name_to_end(
    dialect: Dialect, parts: list[Part], chance: random.Random
) -> None:
    both = TagAndParser(dialect)
    for part in parts:
        both.write(part, chance)
        assert both.calling == both.constrained
    while both.calling:
        both.write("}", chance)
    for name, arguments in both.calls:
        jsonschema.validate(arguments, SCHEMAS[name])


@pytest.mark.parametrize("dialect", [pytest.param(dialect, id=dialect.name) for dialect in BARE_DIALECTS])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"name": "add"', "add"),
        ('{"name": "a\\u0064d"', "add"),
        ('{"na\\u006de": "add"', "add"),
        ('[{"name": "add"', "add"),
        (' [ {"name": "add"', "add"),
        ('[[{"name": "add"', None),
        ('{"name": "ad', None),
        ('{"name": "addi"', None),
        ('{"name": "addison"', "addison"),
        ('{"name": "addis', None),
        ('{"name": "adder", "name": "add"', None),
        ('{"name": "größe"', "größe"),
        ('{"name": "gr\\u00f6ße"', "größe"),
        ('{"name": "say \\"it\\"\\\\"', 'say "it"\\'),
        ('{"name": "say \\"', None),
        (f'{{"id": "{"x" * 300}", "name": "add"', "add"),
        ('{"id": [1, {"name": "addison"}], "type": {}, "name": "add"', "add"),
        ('\n {,, "id": 1,, "name" "add"', "add"),
        ('{"name": add', None),
        ('{"other": 1, "name": "add"', None),
        ('See {"name": "add"', None),
        ('{"name": "add", "parameters": {"a": 7}}', "add"),
    ],
)
def test_bare_call_detector_at_end_of_name_finds_call(dialect: Dialect, text: str, name: str | None) -> None:
    both, chance = TagAndParser(dialect), random.Random(5)
    both.write(text, chance)
    assert [each.name for each in both.found if isinstance(each, ToolCallStart)][-1:] == [name] * (name is not None)
    assert both.constrained == both.calling


@pytest.mark.parametrize(
    "text",
    [
        "",
        *(
            pytest.param(text, marks=pytest.mark.slow)
            for text in ("{", '{"name": ', '{"name"', '{"name": "', '{"name": "ad', '{"name": "a\\', '{"id":"')
        ),
    ],
)
def test_name_overrun_tokens_exclude_every_token_that_parser_and_tag_read_differently(text: str) -> None:
    started = TagAndParser(LLAMA)
    started.write(text, random.Random(5))
    for token in started.allowed():
        both = TagAndParser(LLAMA)
        for each in (*started.taken, token):
            both.take(each)
        assert both.calling == both.constrained
