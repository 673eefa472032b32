"""Short templates in the format of families: the detected family, and the rendering of functions and calls."""

import json
import re
from typing import Any

import pytest

from engine.backends import scripted
from engine.chat_template.message import Call, Message, Tool
from engine.chat_template.template import ChatTemplate
from engine.chat_template.values import TOOLS_PROMPT
from engine.dialects.call_grammar import answer_grammar
from engine.dialects.dialect import ReasoningTags
from engine.dialects.families import DIALECTS
from engine.dialects.parser import Parser
from engine.notations.argument_schema import UNDECLARED, argument_schema
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
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.chat_template.test_template import compiled, rendered
from tests.engine.dialects.test_call_grammar import byte_vocabulary
from tests.engine.dialects.test_dialect import cuts, parse, with_decoded_arguments
from tests.engine.structured_output.test_compiler import accepts
from tests.rows import thinned

ASK = Message("user", "Okapi")
CALL = Call("call_1", "civet", '{"at":"gnu"}')
TALK = [ASK, Message("assistant", "", calls=(CALL,)), Message("tool", "Zorilla", name="civet", call_id="call_1")]
TOOL = Tool("civet", "Finds it.", '{"type":"object","properties":{"at":{"type":"string"}}}')
DECLARED = json.dumps(
    {
        "type": "function",
        "function": {"name": "civet", "description": "Finds it.", "parameters": json.loads(TOOL.parameters)},
    },
    separators=(",", ":"),
)

UNKNOWN = (
    "{% if tools %}[T]{{ tools|tojson }}{% endif %}{% for m in messages %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}[A]@@{{ c.function.name }} {{ c.function.arguments|tojson }}"
    "{% endfor %}{% else %}[{{ m.role[0]|upper }}]{{ m.content }}{% endif %}{% endfor %}[A]"
)


def test_template_with_unknown_call_format_uses_generic_format() -> None:
    template = compiled(UNKNOWN)
    assert template.unread
    assert bytes(template.prompt(TALK, tools=[TOOL])).decode() == (
        f"[S]{TOOLS_PROMPT}{DECLARED}[U]Okapi"
        '[A]<tool_call>\n{"name": "civet", "arguments": {"at":"gnu"}}\n</tool_call>[U]Zorilla[A]'
    )
    parser = template.parser([], {"civet": UNDECLARED})
    assert parser is not None
    text = '<tool_call>\n{"name": "civet", "arguments": {"at": 1}}\n</tool_call>'
    assert [*parser.feed(text), *parser.finish()] == [
        ToolCallStart("civet"),
        ToolCallArguments('{"at": 1}'),
        ToolCallEnd(),
    ]


def test_template_without_functions_is_not_unread() -> None:
    assert not compiled("{% for m in messages %}{{ m.content }}{% endfor %}").unread
    assert not compiled(None).unread


@pytest.mark.parametrize("known", ["functools[{{ c.function|tojson }}]", "{{ c.function|tojson }}"])
def test_template_with_known_call_format_uses_it(known: str) -> None:
    """A bare object needs no signature."""
    template = compiled(UNKNOWN.replace("@@{{ c.function.name }} {{ c.function.arguments|tojson }}", known))
    written = known.replace("{{ c.function|tojson }}", '{"name": "civet", "arguments": {"at": "gnu"}}')
    assert not template.unread
    assert bytes(template.prompt(TALK)).decode() == f"[U]Okapi[A]{written}[T]Zorilla[A]"


def test_template_with_text_before_bare_call_uses_generic_format() -> None:
    """The parser reads a call without a marker at the start of an answer only."""
    action = "Next: [{{ {'tool_name': c.function.name, 'parameters': c.function.arguments}|tojson }}]"
    template = compiled(UNKNOWN.replace("@@{{ c.function.name }} {{ c.function.arguments|tojson }}", action))
    assert template.unread
    assert "Next:" not in bytes(template.prompt(TALK, tools=[TOOL])).decode()


@pytest.mark.parametrize("signature", ["<tool_calls>", "<tool_call>", "[func_name1("])
def test_template_with_signature_of_family_and_other_calls_uses_generic_format(signature: str) -> None:
    """Hunyuan's dense models had the signatures of MiniMax M1 in this way."""
    template = compiled(f"{{# {signature} #}}{UNKNOWN}")
    assert template.unread
    assert TOOLS_PROMPT in bytes(template.prompt([ASK], tools=[TOOL])).decode()


GEMMA_VALUE = (
    "{% macro value(v) %}{% if v is string %}<escape>{{ v }}<escape>{% elif v is boolean %}{{ v|lower }}"
    "{% elif v is mapping %}{ {%- for k, x in v|dictsort %}{{ k }}:{{ value(x) }}{{ '' if loop.last else ',' }}"
    "{% endfor -%} }{% elif v is iterable %}[{% for x in v %}{{ value(x) }}{{ '' if loop.last else ',' }}{% endfor %}]"
    "{% else %}{{ v }}{% endif %}{% endmacro %}"
)
PYTHON_CALLS = (
    "{%% for c in calls %%}{{ c.name }}({%% for k, v in c.arguments.items() %%}{{ k }}={{ v|tojson }}"
    "{{ '' if loop.last else ', ' }}{%% endfor %%}){{ '' if loop.last else '%s' }}{%% endfor %%}"
)
ARGUMENTS = """{"at": "gnu {1}, 'é'", "n": 3, "m": {"k": [true, "p"]}}"""
CIVET, DUGONG = f'{{"name": "civet", "arguments": {ARGUMENTS}}}', '{"name": "dugong", "arguments": {}}'
FAMILIES = {
    "function-gemma": (
        GEMMA_VALUE + "{% for c in calls %}<start_function_call>call:{{ c.name }}{{ value(c.arguments) }}"
        "<end_function_call>{% endfor %}",
        (
            "<start_function_call>call:civet{at:<escape>gnu {1}, 'é'<escape>,m:{k:[true,<escape>p<escape>]},n:3}"
            "<end_function_call><start_function_call>call:dugong{}<end_function_call>"
        ),
    ),
    "python-list": (
        "{# [func_name1(params_name1=params_value1)] #}[" + PYTHON_CALLS % ", " + "]",
        """[civet(at="gnu {1}, 'é'", n=3, m={"k": [true, "p"]}), dugong()]""",
    ),
    "olmo": (
        "<function_calls>" + PYTHON_CALLS % r"\n" + "</function_calls>",
        """<function_calls>civet(at="gnu {1}, 'é'", n=3, m={"k": [true, "p"]})\ndugong()</function_calls>""",
    ),
    "minicpm-4": (
        "<|tool_call_start|>\n```python\n" + PYTHON_CALLS % r"\n" + r"{{ '\n```\n<|tool_call_end|>' }}",
        (
            """<|tool_call_start|>\n```python\ncivet(at="gnu {1}, 'é'", n=3, m={"k": [true, "p"]})\ndugong()\n```\n"""
            """<|tool_call_end|>"""
        ),
    ),
    "xlam": (
        """{# [{"name": "tool_call_name", "arguments": {"arg1": "value1"}}] #}{{ calls|tojson }}""",
        f"[{CIVET}, {DUGONG}]",
    ),
    "hunyuan-dense": (
        (
            "<tool_calls>{% for c in calls %}<tool_call>{{ c.name }}\n```json\n{{ c.arguments|tojson }}\n```"
            "</tool_call>{{ '' if loop.last else '\n' }}{% endfor %}</tool_calls>"
        ),
        (
            f"<tool_calls><tool_call>civet\n```json\n{ARGUMENTS}\n```</tool_call>\n"
            "<tool_call>dugong\n```json\n{}\n```</tool_call></tool_calls>"
        ),
    ),
    "tool-calls-list": (
        "<tool_calls>[{% for c in calls %}{{ c|tojson }}{{ '' if loop.last else ', ' }}{% endfor %}]</tool_calls>",
        f"<tool_calls>[{CIVET}, {DUGONG}]</tool_calls>",
    ),
    "phi-4-mini": (
        "{% for c in calls %}<|tool_call|>{{ c|tojson }}<|/tool_call|>{% endfor %}",
        f"<|tool_call|>{CIVET}<|/tool_call|><|tool_call|>{DUGONG}<|/tool_call|>",
    ),
    "llama-4": (
        (
            "<|python_start|><|python_end|>{% for c in calls %}"
            """{{ '{"name": "' + c.name + '", "parameters": ' }}{{ c.arguments|tojson }}{{ '}' }}{% endfor %}"""
        ),
        (
            f'<|python_start|><|python_end|>{{"name": "civet", "parameters": {ARGUMENTS}}}'
            '{"name": "dugong", "parameters": {}}'
        ),
    ),
    "command-r-plus": (
        (
            "{# <|CHATBOT_TOKEN|> `directly-answer` #}{{ 'Action:\\n```json\\n[\\n' }}{% for c in calls %}"
            """{{ '    {\\n        "tool_name": "' + c.name + '",\\n        "parameters": ' }}"""
            "{{ c.arguments|tojson }}{{ '\\n    }' + ('' if loop.last else ',\\n') }}{% endfor %}{{ '\\n]```' }}"
        ),
        (
            f'Action:\n```json\n[\n    {{\n        "tool_name": "civet",\n        "parameters": {ARGUMENTS}\n    }},\n'
            '    {\n        "tool_name": "dugong",\n        "parameters": {}\n    }\n]```'
        ),
    ),
    "granite-20b": (
        "{% for c in calls %}<function_call> {{ c|tojson }}{% endfor %}",
        f"<function_call> {CIVET}<function_call> {DUGONG}",
    ),
}
"""Family -> the part of its template that renders calls, and the text that it renders for `CALLS`."""
FRAME = (
    "{%% if tools %%}[T]{{ tools|tojson }}{%% endif %%}{%% for m in messages %%}{%% if m.tool_calls %%}[A]"
    "{%% set calls = m.tool_calls|map(attribute='function')|list %%}%s"
    "{%% else %%}[{{ m.role[0]|upper }}]{{ m.content }}{%% endif %%}{%% endfor %%}[A]"
)
CALLS = (
    Call("call_1", "civet", ARGUMENTS),
    Call("call_2", "dugong", "{}"),
)
OUTPUTS = [Message("tool", f"Zorilla of {call.name}", name=call.name, call_id=call.id) for call in CALLS]
SCHEMAS: dict[str, Any] = {
    "civet": {
        "type": "object",
        "properties": {
            "at": {"type": "string"},
            "n": {"type": "integer"},
            "m": {"type": "object", "properties": {"k": {"type": "array", "items": {"type": ["string", "boolean"]}}}},
        },
    },
    "dugong": {"type": "object", "properties": {}},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "source", "written"), thinned({name: (name, *row) for name, row in FAMILIES.items()})
)
def test_family_of_template_reads_and_allows_calls_that_template_renders(
    family: str, source: str, written: str
) -> None:
    template = compiled(FRAME % source)
    assert template.tool_dialect.name == family
    text = rendered(template, [ASK, Message("assistant", "", calls=CALLS), *OUTPUTS])
    assert text == f"[U]Okapi[A]{written}[T]Zorilla of civet[T]Zorilla of dugong[A]"
    expected = [
        each for call in CALLS for each in (ToolCallStart(call.name), json.loads(call.arguments), ToolCallEnd())
    ]
    for pieces in cuts(written):
        assert with_decoded_arguments(parse(template.dialect, pieces)) == expected
    vocabulary = scripted.vocabulary()
    functions = [Function(name, schema) for name, schema in SCHEMAS.items()]
    grammars = GrammarCompiler(vocabulary)
    assert accepts(grammars.lark(answer_grammar(template.dialect, functions, grammars)), vocabulary, written)


LISTED = "{% if tools %}[T]{{ tools|tojson }}{% endif %}"
DESCRIBED = (
    "{%- for t in tools or [] %}{% for k, p in t.function.parameters.properties|items %}{{ k + ': ' + p.description }}"
    "({{ t.function.name }}: {{ t.function.description }}){% endfor %}{% endfor -%}"
)


def test_template_that_needs_descriptions_lists_other_functions_in_a_system_message() -> None:
    """Command R+ fails on a parameter without a description, in transformers too."""
    template = compiled(DESCRIBED + (FRAME % FAMILIES["command-r-plus"][0]).replace(LISTED, ""))
    assert template.tool_dialect.name == "command-r-plus"
    described = Tool("civet", "Finds it.", '{"properties":{"at":{"description":"Place"}}}')
    assert bytes(template.prompt([ASK], tools=[described])).decode() == "at: Place(civet: Finds it.)[U]Okapi[A]"
    text = bytes(template.prompt(TALK, tools=[TOOL])).decode()
    example = (
        'Action:\n```json[{"tool_name": "name_of_the_function", "parameters": {"name_of_its_parameter": "value"}}]```'
    )
    assert text.startswith(f"[S]You can call functions. To call one, write nothing but this:\n{example}\n")
    assert f"{DECLARED}[U]Okapi[A]Action:" in text


def test_template_that_lists_no_functions_gets_them_with_a_call_in_its_own_format() -> None:
    """DeepSeek V3.1 renders calls, and no functions."""
    template = compiled((FRAME % FAMILIES["phi-4-mini"][0]).replace(LISTED, ""))
    assert template.tool_dialect.name == "phi-4-mini"
    text = bytes(template.prompt(TALK, tools=[TOOL])).decode()
    assert "<tool_call>" not in text
    assert text.count('<|tool_call|>{"name": "') == 2


def test_functions_variable_lists_the_functions() -> None:
    """Firefunction's template has its own variable."""
    template = compiled((FRAME % FAMILIES["phi-4-mini"][0]).replace(LISTED, "{{ functions }}"))
    text = bytes(template.prompt([ASK], tools=[TOOL])).decode()
    assert text == f"{json.dumps([json.loads(DECLARED)['function']], indent=4)}[U]Okapi[A]"
    assert bytes(template.prompt([ASK])).decode() == "[][U]Okapi[A]"


def test_answer_of_command_r_plus_without_a_call_is_text() -> None:
    """Its template offers a function that calls nothing."""
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == "command-r-plus")
    text = 'So. Action: ```json\nAction:```json\n[\n    {\n        "tool_name": "directly-answer",\n'
    text += '        "parameters": {}\n    }\n]```'
    for pieces in cuts(text):
        assert parse(dialect, pieces) == [TextDelta("So. Action: ```json")]


GLM_4 = (
    "{%- if tools %}<|system|>{{ tools|tojson }}{% endif %}{% for m in messages %}"
    "{%- set meta = m.get('metadata', '') -%}{% if m.role == 'user' %}<|user|>\n"
    "{{ m.content }}{% elif m.role == 'assistant' %}<|assistant|>"
    "{{ meta ~ ' ' if meta }}\n"
    "{{ m.content }}{% elif m.role == 'observation' %}<|observation|>\n{{ m.content }}{% endif %}{% endfor %}"
    "<|assistant|>"
)
"""GLM-4 of 0414 has no other place for calls than `metadata`."""


@pytest.mark.parametrize("control", [(), ("<|assistant|>", "<|user|>", "<|observation|>")])
def test_glm_4_has_calls_as_messages_with_metadata(control: tuple[str, ...]) -> None:
    vocabulary, grammars = byte_vocabulary(control)
    template = ChatTemplate(GLM_4, vocabulary)
    assert template.tool_dialect.name == "glm-4"
    assert not template.unread
    ids = template.prompt([ASK, Message("assistant", "Now:", calls=CALLS[:1]), *OUTPUTS[:1]], tools=[TOOL])
    text = b"".join(vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in ids).decode()
    assert text.partition("<|user|>")[2] == (
        f"\nOkapi<|assistant|>\nNow:<|assistant|>civet \n{ARGUMENTS}<|observation|>\nZorilla of civet<|assistant|>"
    )
    offered = {name: argument_schema(schema) for name, schema in SCHEMAS.items()}

    def parsed(answer: str) -> list[ParsedDelta]:
        parser = template.parser(ids, offered)
        assert parser is not None
        return merged([*parser.feed(answer), *parser.finish()])

    for space in ("", " "):
        call = [ToolCallStart("civet"), ToolCallArguments(ARGUMENTS), ToolCallEnd()]
        assert parsed(f"civet{space}\n{ARGUMENTS}") == call
    assert parsed("\nSo: civet\n{}") == [TextDelta("So: civet\n{}")]
    assert parsed("civets\nare small.") == [TextDelta("civets\nare small.")]
    functions = [Function(name, schema) for name, schema in SCHEMAS.items()]
    grammar = grammars.lark(answer_grammar(template.tool_dialect, functions, grammars))
    assert accepts(grammar, vocabulary, "civet\n" + ARGUMENTS)
    assert not accepts(grammar, vocabulary, "cive\n" + ARGUMENTS)


def test_glm_4_calls_after_its_thought() -> None:
    """GLM-Z1 thinks and has the format of GLM-4."""
    vocabulary, _ = byte_vocabulary(("<|assistant|>",))
    template = ChatTemplate(GLM_4 + "{# </think> #}<think>", vocabulary)
    offered = {name: argument_schema(schema) for name, schema in SCHEMAS.items()}
    parser = template.parser(template.prompt([ASK]), offered)
    assert parser is not None
    assert merged([*parser.feed("Hm.</think>civet\n{}"), *parser.finish()]) == [
        ReasoningDelta("Hm."),
        *(ToolCallStart("civet"), ToolCallArguments("{}"), ToolCallEnd()),
    ]


KIMI = (
    "{{ tools|tojson if tools }}{% set n = namespace(i=0, ids=[]) %}{% for m in messages %}{% if m.tool_calls %}[A]"
    "{% for c in m.tool_calls %}<|tool_call_begin|>ID<|tool_call_argument_begin|>{{ c.function.arguments|tojson }}"
    "<|tool_call_end|>{% endfor %}{% elif m.role == 'tool' %}[T]OUT {{ m.content }}{% else %}"
    "[U]{{ m.content }}{% endif %}{% endfor %}[A]"
)
OWN_ID = "{{ 'functions.' ~ c.function.name ~ ':' ~ loop.index0 }}"
QUEUED_ID = (
    "{% set id = 'functions.' ~ c.function.name ~ ':' ~ n.i %}{% set n.i = n.i + 1 %}"
    "{% set _ = n.ids.append(id) %}{{ id }}"
)


@pytest.mark.parametrize(
    ("call_id", "output_id", "numbers"),
    [
        ("{{ c.id }}", "{{ m.tool_call_id }}", (0, 1, 2)),
        (OWN_ID, "{{ m.tool_call_id }}", (0, 1, 0)),
        (QUEUED_ID, "{% set id = n.ids.pop(0) %}{{ id }}", (0, 1, 2)),
    ],
)
def test_kimi_has_the_ids_of_calls_for_their_outputs(call_id: str, output_id: str, numbers: tuple[int, ...]) -> None:
    """The ids are those that the model writes, not the client's: releases of Kimi K2 number them differently."""
    template = compiled(KIMI.replace("ID", call_id).replace("OUT", output_id))
    assert template.tool_dialect.name == "kimi"
    again = Call("call_3", "civet", "{}")
    messages = [ASK, Message("assistant", "", calls=CALLS), *OUTPUTS, Message("assistant", "", calls=(again,))]
    text = rendered(template, [*messages, Message("tool", "Zorilla", name="civet", call_id="call_3")])
    ids = [f"functions.{name}:{n}" for name, n in zip(("civet", "dugong", "civet"), numbers, strict=True)]
    assert re.findall(r"<.tool_call_begin.>(.*?)<", text) == ids
    assert re.findall(r"\[T\](\S+) ", text) == ids


def test_llama_4_reads_the_list_that_it_was_trained_on() -> None:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == "llama-4")
    offered = {name: argument_schema(schema) for name, schema in SCHEMAS.items()}
    for text in ('[civet(at="gnu")]', '<|python_start|>[civet(at="gnu")]<|python_end|>'):
        parser = Parser(dialect, offered)
        expected = [ToolCallStart("civet"), ToolCallArguments('{"at": "gnu"}'), ToolCallEnd()]
        assert merged([*parser.feed(text), *parser.finish()]) == expected


@pytest.mark.parametrize(
    "text", ["<|python_start|>$", "$", "<|python_start|><|python_end|>$", "<|python_start|>$<|python_end|>"]
)
def test_llama_4_writes_json_with_and_without_its_markers(text: str) -> None:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == "llama-4")
    answer = text.replace("$", f'{{"name": "civet", "parameters": {ARGUMENTS}}}')
    expected = [ToolCallStart("civet"), json.loads(ARGUMENTS), ToolCallEnd()]
    offered = {name: argument_schema(schema) for name, schema in SCHEMAS.items()}
    for pieces in cuts(answer):
        parser, found = Parser(dialect, offered), list[ParsedDelta]()
        for piece in pieces:
            found += parser.feed(piece)
        assert with_decoded_arguments(merged([*found, *parser.finish()])) == expected
    vocabulary, grammars = byte_vocabulary(())
    functions = [Function(name, schema) for name, schema in SCHEMAS.items()]
    assert accepts(grammars.lark(answer_grammar(dialect, functions, grammars)), vocabulary, answer)


def test_reasoning_of_minicpm_is_detected_and_rendered() -> None:
    """MiniCPM's template has its own field for reasoning."""
    thought = "{% if m.thought %}<|thought_start|>\n{{ m.thought }}\n<|thought_end|>\n{% endif %}"
    template = compiled((FRAME % FAMILIES["minicpm-4"][0]).replace("{{ m.content }}", thought + "{{ m.content }}"))
    assert template.dialect.reasoning_tags == (ReasoningTags("<|thought_start|>", "<|thought_end|>"),)
    text = rendered(template, [ASK, Message("assistant", "So.", "Hm."), ASK])
    assert text == "[U]Okapi[A]<|thought_start|>\nHm.\n<|thought_end|>\nSo.[U]Okapi[A]"
