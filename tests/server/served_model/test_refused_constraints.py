"""Tools and formats that cannot be enforced: refused with their place, or found out in the answer."""

from typing import Any

import pytest

from tests.server.api.test_formats import FORMAT
from tests.server.api.tools.test_tools import HERMES, call, writes
from tests.server.served_model.test_enforced_answers import ALLOWED, BAD, TIME, WEATHER, answers, stubborn
from tests.support.helpers import encode, exchange, served

AGENTS = {"type": "namespace", "name": "agents", "tools": [{**TIME, "parameters": BAD, "strict": True}]}
KEYWORD = (
    "cannot be enforced, at `properties.a.not`: the keyword `not` is not supported"
    " unless the negation of its schema can be written with supported keywords."
)


def custom(syntax: str, definition: str) -> dict[str, Any]:
    form = {"type": "grammar", "syntax": syntax, "definition": definition}
    return {"type": "custom", "name": "code", "format": form}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "strict": (
        {"tools": [TIME, {**WEATHER, "parameters": BAD}]},
        "tools[1].parameters",
        f"The schema in `tools[1].parameters` {KEYWORD}",
    ),
    "strict in a namespace": (
        {"tools": [AGENTS]},
        "tools[0].tools[0].parameters",
        f"The schema in `tools[0].tools[0].parameters` {KEYWORD}",
    ),
    "strict, and not called": (
        {"tools": [{**WEATHER, "parameters": BAD}], "tool_choice": "none"},
        "tools[0].parameters",
        f"The schema in `tools[0].parameters` {KEYWORD}",
    ),
    "no object": (
        {"tools": [{**WEATHER, "parameters": {"type": "string"}}]},
        "tools[0].parameters",
        "The schema in `tools[0].parameters` cannot be enforced, at `type`: a function takes an object.",
    ),
    "a format, though it holds no call": (
        {"tools": [TIME], "tool_choice": "required", "text": {"format": {**FORMAT, "schema": BAD}}},
        "text.format.schema",
        f"The schema in `text.format.schema` {KEYWORD}",
    ),
    "a format beside tools": (
        {"tools": [TIME], "text": {"format": {**FORMAT, "schema": BAD}}},
        "text.format.schema",
        f"The schema in `text.format.schema` {KEYWORD}",
    ),
    "a broken grammar": ({"tools": [custom("lark", "start: nobody")]}, "tools[0].format", "The grammar in"),
    "a broken regex": ({"tools": [custom("regex", "a(")]}, "tools[0].format", "The grammar in"),
    "a regex that is none, but for the brackets around it": (
        {"tools": [custom("regex", "a)|(b")]},
        "tools[0].format",
        'The grammar in `tools[0].format` cannot be enforced: invalid regex "a)|(b"',
    ),
    "a grammar without an end": (
        {"tools": [custom("lark", 'start: "a" start')]},
        "tools[0].format",
        "The grammar in `tools[0].format` cannot be enforced: parser error: Too many items",
    ),
    "a grammar without an end behind a character": (
        {"tools": [custom("lark", "start: /[ab]/ rest\nrest: /c/ rest")]},
        "tools[0].format",
        "The grammar in `tools[0].format` cannot be enforced: parser error: Too many items",
    ),
    "a regex of characters that can't stand in JSON": (
        {"tools": [custom("regex", r"ab\x00")]},
        "tools[0].format",
        "The grammar in `tools[0].format` cannot be enforced: a required control character is not supported.",
    ),
    "such a Lark grammar": (
        {"tools": [custom("lark", r"start: /\x00/")]},
        "tools[0].format",
        "The grammar in `tools[0].format` cannot be enforced: as a text in JSON, no output satisfies it.",
    ),
    "a grammar that can't stand in JSON": (
        {"tools": [custom("lark", 'start: %json {"type": "string"}')]},
        "tools[0].format",
        "The grammar in `tools[0].format` cannot be enforced: ",
    ),
    "no syntax of ours": (
        {"tools": [custom("ebnf", "x")]},
        "tools[0].format.syntax",
        "`tools[0].format.syntax` is 'ebnf'; it must be lark or regex.",
    ),
    "no format of ours": (
        {"tools": [{"type": "custom", "name": "c", "format": {"type": "xml"}}]},
        "tools[0].format.type",
        "Invalid value 'xml' in `tools[0].format.type`.",
    ),
    "nothing to call": (
        {"tools": [{"type": "web_search"}], "tool_choice": "required"},
        "tool_choice",
        "`tool_choice` requires a call, but the request has no tool to call: send one in `tools`.",
    ),
    "no mode of ours": (
        {"tools": [TIME], "tool_choice": {**ALLOWED, "mode": "require"}},
        "tool_choice.mode",
        "`tool_choice.mode` is 'require'; it must be auto or required.",
    ),
    "nothing allowed": (
        {"tools": [TIME], "tool_choice": {**ALLOWED, "tools": []}},
        "tool_choice",
        "`tool_choice` requires a call, but the request has no tool to call: send one in `tools`.",
    ),
}


SLOW_CASES = ("a grammar without an end", "a grammar without an end behind a character")
"""Cases for which llguidance takes half a second."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW_CASES)) for case in REFUSED]
)
async def test_unenforceable_tool_or_format_is_refused_by_its_place(case: str) -> None:
    fields, param, message = REFUSED[case]
    for answer in await answers(stubborn(), **fields):
        assert (answer.status, answer.json["error"]["param"]) == (400, param)
        assert answer.json["error"]["message"].startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_grammar_that_fails_in_answer_names_its_tool(choice: str) -> None:
    """It is the client's error, since a retry would fail too. The grammar has two branches; the request tries the
    valid one first."""
    tool = custom("lark", 'start: "r" endless | "z"\nendless: "y" endless')
    streamed, folded = await answers(writes(call("code", '{"input": "r')), tools=[tool], tool_choice=choice)
    message = "The call of the tool `code` no longer matches its grammar: parser error: Too many items"
    error = streamed.events[-1]["response"]["error"]
    assert (streamed.events[-1]["type"], error["code"]) == ("response.failed", "invalid_prompt")
    assert (folded.status, folded.json["error"]["type"]) == (400, "invalid_request_error")
    for text in (error["message"], folded.json["error"]["message"]):
        assert text.startswith(message)


CHAT_GRAMMAR = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "?"}}


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "function", "function": {**WEATHER, "parameters": BAD}}, "tools[0].function.parameters"),
        ({"type": "custom", "custom": {"name": "c", "format": CHAT_GRAMMAR}}, "tools[0].custom.format"),
    ],
)
async def test_refusal_in_chat_completions_names_its_own_place(tool: Any, param: str) -> None:
    asked = encode(messages=[{"role": "user", "content": "So?"}], tools=[tool])
    async with served(stubborn(), template=HERMES) as running:
        answer = await exchange(running, "POST", "/v1/chat/completions", asked)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


async def test_top_logprobs_without_logprobs_in_chat_completions_is_refused() -> None:
    asked = encode(messages=[{"role": "user", "content": "So?"}], top_logprobs=2)
    async with served(stubborn()) as running:
        answer = await exchange(running, "POST", "/v1/chat/completions", asked)
    assert (answer.status, answer.json["error"]["param"]) == (400, "top_logprobs")
