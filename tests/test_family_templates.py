"""Templates of a few lines, as families have them: which family is found, and what becomes of functions and calls."""

import json

from engine import Call, Message, Tool
from engine.declared import UNDECLARED
from engine.manners import TOOLS_TOLD
from engine.utterance import Arguments, CallBegun, CallEnded
from tests.test_template import compiled

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


def test_template_with_unknown_form_of_calls_gets_the_generic_form() -> None:
    template = compiled(UNKNOWN)
    assert template.unread
    assert bytes(template.prompt(TALK, tools=[TOOL])).decode() == (
        f"[S]{TOOLS_TOLD}{DECLARED}[U]Okapi"
        '[A]<tool_call>\n{"name": "civet", "arguments": {"at":"gnu"}}\n</tool_call>[U]Zorilla[A]'
    )
    parser = template.parser([], {"civet": UNDECLARED})
    assert parser is not None
    text = '<tool_call>\n{"name": "civet", "arguments": {"at": 1}}\n</tool_call>'
    assert [*parser.feed(text), *parser.finish()] == [CallBegun("civet"), Arguments('{"at": 1}'), CallEnded()]


def test_template_without_functions_is_no_unknown_form() -> None:
    assert not compiled("{% for m in messages %}{{ m.content }}{% endfor %}").unread
    assert not compiled(None).unread


def test_template_with_known_form_of_calls_gets_its_own() -> None:
    template = compiled("{# <tool_calls> #}" + UNKNOWN)
    assert not template.unread
    assert bytes(template.prompt(TALK)).decode() == '[U]Okapi[A]@@civet {"at": "gnu"}[T]Zorilla[A]'
