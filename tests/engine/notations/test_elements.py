"""Arguments that are elements: the parser reads them by their schema, and the grammar enforces that."""

from typing import Any

import pytest

from engine.dialects.call_grammar import answer_grammar
from engine.dialects.families import DIALECTS
from engine.dialects.parser import Parser
from engine.notations.argument_schema import argument_schema
from engine.notations.call_format import Function
from engine.notations.parsed import ParsedDelta, ToolCallArguments, ToolCallEnd, ToolCallStart, merged
from tests.engine.dialects.test_call_grammar import byte_vocabulary
from tests.engine.dialects.test_dialect import cuts
from tests.engine.structured_output.test_compiler import accepts
from tests.rows import thinned

MARK = "]<]minimax[>["
DIALECT = next(dialect for dialect in DIALECTS if dialect.name == "minimax-3")

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
PLACE = {"type": "object", "properties": {"item": NUMBER, "name": TEXT}}
SCHEMAS: dict[str, dict[str, Any]] = {
    "text": TEXT,
    "number": NUMBER,
    "either": {"type": ["string", "null"]},
    "place": PLACE,
    "texts": {"type": "array", "items": TEXT, "maxItems": 2},
    "places": {"type": "array", "items": PLACE},
    "unit": {"$ref": "#/$defs/unit"},
    "tree": {"$ref": "#/$defs/tree"},
    "code": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]$"}},
    "free": {"type": "object"},
}
WHOLE: dict[str, Any] = {
    "$defs": {
        "unit": {"type": "string", "enum": ["1", "2"]},
        "tree": {"type": "object", "properties": {"leaf": TEXT, "inner": {"$ref": "#/$defs/tree"}}},
    },
    "type": "object",
    "properties": SCHEMAS,
    "additionalProperties": False,
}

WRITABLE = {
    "a text to the letter": ("@<text> 3\n<b>&lt;@</text>", '{"text": " 3\\n<b>&lt;"}'),
    "a number": ("@<number>3@</number>", '{"number": 3}'),
    "what may be something else": ('@<either>"3"@</either>', '{"either": "3"}'),
    "an object": ("@<place>@<item>3@</item>@<name>4@</name>@</place>", '{"place": {"item": 3, "name": "4"}}'),
    "an object without anything": ("@<place>@</place>", '{"place": {}}'),
    "a list": ("@<texts>@<item>3@</item>@<item>@</item>@</texts>", '{"texts": ["3", ""]}'),
    "a list without anything": ("@<texts>@</texts>", '{"texts": []}'),
    "a list of objects": (
        "@<places>@<item>@<item>3@</item>@</item>@<item>@</item>@</places>",
        '{"places": [{"item": 3}, {}]}',
    ),
    "what is referred to": ("@<unit>2@</unit>", '{"unit": "2"}'),
    "what refers to itself is JSON": (
        '@<tree>{"leaf": "3", "inner": {}}@</tree>', '{"tree": {"leaf": "3", "inner": {}}}',
    ),
    "texts of a form are JSON": ('@<code>["a"]@</code>', '{"code": ["a"]}'),
    "what is not declared is JSON": ('@<free>{"a": "]"}@</free>', '{"free": {"a": "]"}}'),
    "several": ("@<text>a@</text>@<number>3@</number>", '{"text": "a", "number": 3}'),
    "none": ("", "{}"),
}  # fmt: skip
READABLE = {
    "lists and objects that nobody declared": (
        "\n @<a>\n@<b>@<item>3@</item>@<item>c d@</item>@</b> @<e>true@</e>@</a>\n",
        '{"a": {"b": [3, "c d"], "e": true}}',
    ),
    "an end of what has not begun": ("@<place>@<name>4@</name>@</unit>@</place>", '{"place": {"name": "4"}}'),
    "JSON": ('{"text": "3"}', '{"text": "3"}'),
    "an element without its end": ("@<place>@<name>4", '{"place": {"name": "4"}}'),
    "a text of one that is no list": ("@<texts>3@</texts>", '{"texts": 3}'),
}


def written(elements: str) -> str:
    """Return a call with these elements; `@` stands for the mark."""
    return f'@<tool_call>@<invoke name="f">{elements}@</invoke>@</tool_call>'.replace("@", MARK)


@pytest.mark.slow
@pytest.mark.parametrize(("elements", "arguments"), thinned(WRITABLE | READABLE))
def test_parser_of_elements_reads_arguments_by_schema(elements: str, arguments: str) -> None:
    for pieces in cuts(written(elements)):
        parser, found = Parser(DIALECT, {"f": argument_schema(WHOLE)}), list[ParsedDelta]()
        for piece in pieces:
            found += parser.feed(piece)
        assert merged([*found, *parser.finish()]) == [ToolCallStart("f"), ToolCallArguments(arguments), ToolCallEnd()]


@pytest.mark.slow
def test_parser_of_elements_with_nested_call_reads_two_calls() -> None:
    """MiniMax-M3 sometimes omits end tags."""
    text = written('@<text>a@</text>\n@<invoke name="g">@<x>1@</x>')
    for pieces in cuts(text):
        parser, found = Parser(DIALECT, {"f": argument_schema(WHOLE)}), list[ParsedDelta]()
        for piece in pieces:
            found += parser.feed(piece)
        assert merged([*found, *parser.finish()]) == [
            *(ToolCallStart("f"), ToolCallArguments('{"text": "a"}'), ToolCallEnd()),
            *(ToolCallStart("g"), ToolCallArguments('{"x": 1}'), ToolCallEnd()),
        ]


@pytest.mark.parametrize("elements", [elements for elements, _ in WRITABLE.values()], ids=WRITABLE)
def test_grammar_of_elements_allows_valid_arguments(elements: str) -> None:
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.lark(answer_grammar(DIALECT, [Function("f", WHOLE)], grammars))
    assert accepts(grammar, vocabulary, written(elements))


INVALID = {
    "a number that is none": "@<number>x@</number>",
    "one more than may be": "@<texts>@<item>3@</item>@<item>3@</item>@<item>3@</item>@</texts>",
    "none of those": "@<unit>3@</unit>",
    "what is not declared": "@<a>3@</a>",
}


@pytest.mark.parametrize(
    ("elements", "taken"),
    [
        ("@<place>@<name>4@</name>@<item>3@</item>@</place>", True),
        ("@<place>@<name>4@</name>@<name>4@</name>@</place>", False),
        ("@<n>3@</n>@<place>@</place>", True),
        ("@<n>3@</n>", False),
    ],
)
def test_few_elements_may_come_in_any_order(elements: str, taken: bool) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"place": PLACE, "n": NUMBER}, "required": ["place"]}
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.lark(answer_grammar(DIALECT, [Function("f", schema)], grammars))
    assert accepts(grammar, vocabulary, written(elements)) == taken


@pytest.mark.parametrize("elements", INVALID.values(), ids=INVALID)
def test_grammar_of_elements_forbids_invalid_arguments(elements: str) -> None:
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.lark(answer_grammar(DIALECT, [Function("f", WHOLE)], grammars))
    assert not accepts(grammar, vocabulary, written(elements))
