"""Short templates in the format of families: the detected family, and the rendering of functions and calls."""

import json
from typing import Any

import pytest

from engine.backends import scripted
from engine.chat_template.message import Call, Message, Tool
from engine.chat_template.rendering import TOOLS_PROMPT
from engine.dialects.call_grammar import answer_grammar
from engine.dialects.dialect import ReasoningTags
from engine.notations.argument_schema import UNDECLARED
from engine.notations.call_format import Function
from engine.notations.parsed import ToolCallArguments, ToolCallEnd, ToolCallStart
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.chat_template.test_template import compiled, rendered
from tests.engine.dialects.test_dialect import cuts, parse, with_decoded_arguments
from tests.engine.structured_output.test_compiler import accepts

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
    """Command R+ writes `Action:` and a fence, which the parser would not read as a call."""
    action = "Action:\n```json\n[{{ {'tool_name': c.function.name, 'parameters': c.function.arguments}|tojson }}]\n```"
    template = compiled(UNKNOWN.replace("@@{{ c.function.name }} {{ c.function.arguments|tojson }}", action))
    assert template.unread
    assert "Action:" not in bytes(template.prompt(TALK, tools=[TOOL])).decode()


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


@pytest.mark.parametrize(("family", "source", "written"), [(name, *row) for name, row in FAMILIES.items()])
def test_family_of_template_reads_and_allows_calls_that_template_renders(
    family: str, source: str, written: str
) -> None:
    template = compiled(FRAME % source)
    assert template.tool_dialect.name == family
    outputs = (Message("tool", f"Zorilla of {call.name}", name=call.name, call_id=call.id) for call in CALLS)
    text = rendered(template, [ASK, Message("assistant", "", calls=CALLS), *outputs])
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


def test_reasoning_of_minicpm_is_detected_and_rendered() -> None:
    """MiniCPM's template has its own field for reasoning."""
    thought = "{% if m.thought %}<|thought_start|>\n{{ m.thought }}\n<|thought_end|>\n{% endif %}"
    template = compiled((FRAME % FAMILIES["minicpm-4"][0]).replace("{{ m.content }}", thought + "{{ m.content }}"))
    assert template.dialect.reasoning_tags == (ReasoningTags("<|thought_start|>", "<|thought_end|>"),)
    text = rendered(template, [ASK, Message("assistant", "So.", "Hm."), ASK])
    assert text == "[U]Okapi[A]<|thought_start|>\nHm.\n<|thought_end|>\nSo.[U]Okapi[A]"
