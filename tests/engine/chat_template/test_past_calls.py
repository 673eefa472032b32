"""Past calls for templates that render none: they have the format of the family's new calls."""

import json

import pytest

from engine.chat_template.message import Call, Message, Tool
from engine.chat_template.past_calls import calls_writer
from engine.chat_template.template import ChatTemplate
from engine.dialects.call_grammar import answer_grammar
from engine.dialects.dialect import Dialect
from engine.dialects.families import DIALECTS, GENERIC
from engine.dialects.parser import Parser
from engine.json_schema import JSON
from engine.notations.argument_schema import argument_schema
from engine.notations.call_format import Function
from engine.notations.parsed import ParsedDelta, ToolCallArguments, ToolCallEnd, ToolCallStart, merged
from tests.engine.chat_template.test_template import compiled, parts, rendered, vocabulary_with
from tests.engine.dialects.test_call_grammar import byte_vocabulary
from tests.engine.structured_output.test_compiler import accepts
from tests.rows import thinned

SCHEMAS: dict[str, JSON] = {
    "civet": {"type": "object", "properties": {"at": {"type": "string"}, "n": {"type": "array"}}},
    "dugong": {"type": "object", "properties": {}},
}
CALLS = [
    Call("call_civet", "civet", '{"at": "gnu\\n\'x\' \\"y\\" é", "n": [1, null, {"k": true}]}'),
    Call("call_dugong", "dugong", ""),
]
WRITERS = [dialect for dialect in DIALECTS if calls_writer(dialect)]
WRITTEN = {
    "granite": '<|tool_call|>[{"name": "civet", "arguments": {"n": 1}}, {"name": "dugong", "arguments": {}}]',
    "lfm": "<|tool_call_start|>[civet(n=1), dugong()]<|tool_call_end|>",
    "olmo": "<function_calls>civet(n=1)\ndugong()</function_calls>",
    "hunyuan-dense": "<tool_calls>\n<tool_call>civet\n```json\n{\"n\": 1}\n```</tool_call>"
    "\n<tool_call>dugong\n```json\n{}\n```</tool_call>\n</tool_calls>",
    "mistral-list": '[TOOL_CALLS][{"name": "civet", "arguments": {"n": 1}}, {"name": "dugong", "arguments": {}}]',
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.civet:0<|tool_call_argument_begin|>{\"n\": 1}"
    "<|tool_call_end|><|tool_call_begin|>functions.dugong:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
    "<|tool_calls_section_end|>",
    "glm": "<tool_call>civet\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n</tool_call>\n"
    "<tool_call>dugong\n</tool_call>",
    "coder": "<tool_call>\n<function=civet>\n<parameter=n>\n1\n</parameter>\n</function>\n</tool_call>\n"
    "<tool_call>\n<function=dugong>\n</function>\n</tool_call>",
    "minimax": '<minimax:tool_call>\n<invoke name="civet">\n<parameter name="n">1</parameter>\n</invoke>'
    '\n<invoke name="dugong">\n</invoke>\n</minimax:tool_call>',
    "deepseek-dsml": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="civet">\n'
    '<｜DSML｜parameter name="n" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    '<｜DSML｜invoke name="dugong">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    "gemma": "<|tool_call>call:civet{n:1}<tool_call|><|tool_call>call:dugong{}<tool_call|>",
    "minimax-3": ']<]minimax[>[<tool_call>]<]minimax[>[<invoke name="civet">]<]minimax[>[<n>1]<]minimax[>[</n>'
    ']<]minimax[>[</invoke>]<]minimax[>[<invoke name="dugong">]<]minimax[>[</invoke>]<]minimax[>[</tool_call>',
    "command-r-plus": 'Action:\n```json[{"tool_name": "civet", "parameters": {"n": 1}}, '
    '{"tool_name": "dugong", "parameters": {}}]```',
    "llama-4": '<|python_start|>{"name": "civet", "parameters": {"n": 1}}{"name": "dugong", "parameters": {}}',
}  # fmt: skip


def named(name: str) -> Dialect:
    return next(dialect for dialect in DIALECTS if dialect.name == name)


@pytest.mark.parametrize(("name", "text"), WRITTEN.items(), ids=WRITTEN)
def test_calls_writer_of_family_writes_its_format(name: str, text: str) -> None:
    write = calls_writer(named(name))
    assert write is not None
    assert write([Call("c1", "civet", '{"n":1}'), Call("c2", "dugong", "{}")], str) == text


@pytest.mark.parametrize("dialect", thinned({dialect.name: dialect for dialect in WRITERS}))
def test_calls_writer_output_is_read_by_parser_and_allowed_by_grammar(dialect: Dialect) -> None:
    write = calls_writer(dialect)
    assert write is not None
    text = write(CALLS, str)
    offered = {name: argument_schema(schema) for name, schema in SCHEMAS.items()}
    parser = Parser(dialect, offered)
    found = [
        json.loads(each.text) if isinstance(each, ToolCallArguments) else each
        for each in merged([*parser.feed(text.removeprefix(dialect.generation_prefix)), *parser.finish()])
    ]
    expected: list[ParsedDelta | JSON] = []
    for call in CALLS:
        expected += [ToolCallStart(call.name), json.loads(call.arguments or "{}"), ToolCallEnd()]
    assert found == expected
    vocabulary, grammars = byte_vocabulary(())
    functions = [Function(name, schema) for name, schema in SCHEMAS.items()]
    if dialect.name == "minimax-3":
        return  # its grammar has JSON for values of any type
    assert accepts(grammars.lark(answer_grammar(dialect, functions, grammars)), vocabulary, text)


@pytest.mark.parametrize("name", ["harmony", "muse", "kimi-3", "functionary-3.2", "glm-4"])
def test_calls_writer_of_format_that_only_templates_write_is_none(name: str) -> None:
    assert calls_writer(named(name)) is None


def test_calls_writer_of_generic_format_is_none() -> None:
    assert calls_writer(GENERIC) is None


def test_calls_writer_with_special_name_writes_generic_format() -> None:
    write = calls_writer(named("lfm"))
    assert write is not None
    assert write([Call("c", "a (b)", "{}")], str) == '<tool_call>\n{"name": "a (b)", "arguments": {}}\n</tool_call>'


BLIND = (
    "{{ 'List of tools: <|tool_list_start|>' if tools }}{{ tools|tojson if tools }}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
)
"""Template like LFM2's, which lists functions and renders no calls."""
ASK, OUT = Message("user", "Q"), Message("tool", "1", name="civet", call_id="c")


def test_prompt_of_template_without_calls_has_them_in_family_format() -> None:
    template = compiled(BLIND)
    messages = [ASK, Message("assistant", "Now:", calls=(Call("c", "civet", '{"n": 1}'),)), OUT]
    assert rendered(template, messages) == (
        "<|user|>Q<|assistant|>Now:\n<|tool_call_start|>[civet(n=1)]<|tool_call_end|><|tool|>1"
    )


def test_prompt_of_template_without_functions_has_calls_in_generic_format() -> None:
    template = compiled("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}")
    messages = [ASK, Message("assistant", "", calls=(Call("c", "civet", '{"n": 1}'),)), OUT]
    call = '<tool_call>\n{"name": "civet", "arguments": {"n": 1}}\n</tool_call>'
    assert rendered(template, messages) == f"<|user|>Q<|assistant|>{call}<|user|>1"


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("<|{{ m.role }}|>{{ m.content }}", "<|tool|>1"),
        ("{% if m.role == 'tool' %}[{{ m.name }}]{% else %}|{% endif %}{{ m.content }}", "[civet]1"),
        ("{{ '<U>' if m.role == 'user' else '<A>' }}{{ m.content }}", "<U>1"),
        ("{% if m.role != 'tool' %}<|{{ m.role }}|>{{ m.content }}{% endif %}", "<|user|>1"),
        ("{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}<|{{ m.role }}|>{{ m.content }}", "<|user|>1"),
    ],
)
def test_prompt_of_template_with_outputs_renders_output_as_tool_message(body: str, output: str) -> None:
    template = compiled(BLIND.partition("{% for")[0] + "{% for m in messages %}" + body + "{% endfor %}")
    messages = [ASK, Message("assistant", "", calls=(Call("c", "civet", '{"n": 1}'),)), OUT]
    assert rendered(template, messages).partition("<|tool_call_end|>")[2] == output


def test_prompt_with_past_calls_has_control_tokens_for_markers_only() -> None:
    vocabulary = vocabulary_with("<|tool_call_start|>", "<|tool_call_end|>")
    template = ChatTemplate(BLIND, vocabulary)
    call = Call("c", "civet", '{"at": "\\u003c|tool_call_end|>"}')
    messages = [ASK, Message("assistant", "<|tool_call_end|>", calls=(call,)), OUT]
    assert parts(vocabulary, template.prompt(messages)) == [
        "<|user|>Q<|assistant|><|tool_call_end|>\n",
        256,
        '[civet(at="<|tool_call_end|>")]',
        257,
        "<|tool|>1",
    ]


SEED_CALL = (
    "<seed:tool_call>\n<function=civet>\n<parameter=at>it's</parameter>\n"
    "<parameter=n>[1, None, {'k': True}]</parameter>\n</function>\n</seed:tool_call>"
)


def test_calls_writer_of_seed_writes_objects_as_in_python() -> None:
    write = calls_writer(named("seed"))
    assert write is not None
    assert write([Call("c", "civet", '{"at": "it\'s", "n": [1, null, {"k": true}]}')], str) == SEED_CALL


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("coder", '{"at": "</parameter>"}'), ("glm", '{"two words": 1}'), ("gemma", '{"at": "<|\\"|>"}')],
)
def test_calls_writer_with_special_arguments_writes_json(name: str, arguments: str) -> None:
    write = calls_writer(named(name))
    assert write is not None
    assert arguments in write([Call("c", "civet", arguments)], str)


def test_prompt_with_example_of_call_has_control_tokens_for_its_markers_only() -> None:
    """Spelled in plain tokens, the model would write them so, and they would mean nothing."""
    vocabulary = vocabulary_with("<|tool_call|>", "<|/tool_call|>")
    template = ChatTemplate(
        "{% for m in messages %}[{{ m.role }}]{% for c in m.tool_calls or [] %}<|tool_call|>{{ c.function|tojson }}"
        "<|/tool_call|>{% endfor %}{{ m.content }}{% endfor %}",
        vocabulary,
    )
    tool = Tool("civet", "Writes <|/tool_call|>.", "{}")
    found = parts(vocabulary, template.prompt([Message("system", "Be <|tool_call|>."), ASK], tools=[tool]))
    example = '{"name": "name_of_the_function", "arguments": {"name_of_its_parameter": "value"}}'
    assert [each for each in found if isinstance(each, int)] == [256, 257]
    assert found[0] == ("[system]Be <|tool_call|>.\n\nYou can call functions. To call one, write nothing but this:\n")
    assert found[1:4] == [256, example, 257]
    assert "Writes <|/tool_call|>." in str(found[4])
