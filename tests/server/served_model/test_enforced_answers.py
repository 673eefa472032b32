"""Constraints of an answer: models that would write something else."""

import json
import re
from typing import Any

import pytest

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from tests.server.api.test_formats import FORMAT, SCHEMA
from tests.server.api.test_reasoning import THINKS
from tests.server.api.tools.test_tools import HERMES, call, evaluated, gist, output, writes
from tests.support.helpers import Answer, encode, exchange, post, served

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
WEATHER: dict[str, Any] = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": True}
TIME: dict[str, Any] = {"type": "function", "name": "get_time"}
BAD = {"type": "object", "properties": {"a": {"type": "integer", "not": {"multipleOf": 3}}}}
CODE = {"type": "custom", "name": "code", "format": {"type": "grammar", "syntax": "regex", "definition": "[a-c]{2}"}}


def stubborn(text: bytes = b"Well.") -> ScriptedModel:
    """Return a model that would write this text and end."""
    return ScriptedModel(lambda message: text, n_ctx=1 << 14)


async def answers(model: ScriptedModel, template: str = HERMES, **fields: Any) -> tuple[Answer, Answer]:
    async with served(model, template=template) as running:
        fields = {"input": "How is it?", "temperature": 0, "max_output_tokens": 200, **fields}
        return await post(running, **fields, stream=True), await post(running, **fields)


NAMED = {"type": "function", "name": "get_weather"}
ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [NAMED]}


@pytest.mark.slow
@pytest.mark.parametrize("choice", [NAMED, ALLOWED])
async def test_demanded_call_is_made_by_model_that_would_write_text(choice: Any) -> None:
    streamed, folded = await answers(stubborn(), tools=[WEATHER, TIME], tool_choice=choice, parallel_tool_calls=False)
    for items in (output(streamed), folded.json["output"]):
        ((kind, name, arguments),) = gist(items)
        assert (kind, name) == ("function_call", "get_weather")
        assert json.loads(arguments)["city"] in ("Rome", "Oslo")
    assert (folded.json["tool_choice"], folded.json["status"]) == (choice, "completed")


@pytest.mark.slow
async def test_demanded_call_has_the_arguments_that_model_writes_if_valid() -> None:
    text = f"\n{call('get_time', '{}')}\n{call('get_weather', json.dumps({'city': 'Oslo'}))}"
    streamed, _ = await answers(writes(text), tools=[WEATHER, TIME], tool_choice="required")
    assert gist(output(streamed)) == [
        ("function_call", "get_time", "{}"), ("function_call", "get_weather", '{"city": "Oslo"}'),
    ]  # fmt: skip


@pytest.mark.slow
async def test_free_text_is_unconstrained_and_call_in_it_is_enforced() -> None:
    text = f"Let me see: {call('get_weather', json.dumps({'city': 'Paris'}))}"
    streamed, _ = await answers(writes(text), tools=[WEATHER, TIME], parallel_tool_calls=False)
    message, made = gist(output(streamed))
    assert message == ("message", "Let me see:")
    assert json.loads(made[2])["city"] in ("Rome", "Oslo")


@pytest.mark.slow
@pytest.mark.parametrize(
    "begins",
    [
        '"id": 1, "name": "get_weather"',
        '"type": null ,"id":"x", "name": "get_weather"',
        f'"id": "{"x" * 300}", "name": "get_weather"',
        '"id": [1, {}],, "name": "get_weather"',
        '"name": "get_w\\u0065ather"',
    ],
)
async def test_bare_call_in_any_spelling_is_enforced_after_its_name(begins: str) -> None:
    text = f'{{{begins}, "arguments": {{"city": "Paris"}}}}'
    streamed, _ = await answers(
        writes(text), scripted.TEMPLATE, tools=[WEATHER], parallel_tool_calls=False, max_output_tokens=600
    )
    ((_, name, arguments),) = gist(output(streamed))
    assert (name, json.loads(arguments)["city"] in ("Rome", "Oslo")) == ("get_weather", True)


@pytest.mark.slow
async def test_call_without_its_namespace_is_enforced() -> None:
    text = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
    space = {"type": "namespace", "name": "sky", "tools": [WEATHER]}
    streamed, _ = await answers(writes(text), scripted.TEMPLATE, tools=[space, TIME], parallel_tool_calls=False)
    ((_, _, name, arguments),) = gist(output(streamed))
    assert (name, json.loads(arguments)["city"] in ("Rome", "Oslo")) == ("get_weather", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["get_weather_at", "get_weathers"])
async def test_name_that_begins_like_an_offered_one_is_another_name(name: str) -> None:
    text = f'{{"name": "{name}", "arguments": {{}}}}'
    tools = [WEATHER, {**TIME, "name": "get_weather_at"}]
    streamed, _ = await answers(writes(text), scripted.TEMPLATE, tools=tools, parallel_tool_calls=False)
    offered = name == "get_weather_at"
    assert gist(output(streamed)) == [("function_call", name, "{}") if offered else ("message", text)]


@pytest.mark.slow
async def test_demanded_call_follows_free_reasoning() -> None:
    """Reasoning is unconstrained, and a call inside it is text."""
    text = b"<think>\nI may {call}.\n</think>\n\nWell."
    streamed, folded = await answers(
        stubborn(text), THINKS, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
    )
    assert [kind for kind, *_ in gist(folded.json["output"])] == ["reasoning", "function_call"]
    assert folded.json["output"][0]["content"][0]["text"] == "I may {call}."
    assert gist(output(streamed)) == gist(folded.json["output"])


@pytest.mark.slow
async def test_formatted_answer_follows_reasoning_and_may_have_its_markers() -> None:
    """Markers inside a JSON string are text."""
    text = b'<think>Hm.</think>{"a": "<think>x</think><tool_call>"}'
    _, folded = await answers(stubborn(text), THINKS, text={"format": {"type": "json_object"}})
    assert gist(folded.json["output"]) == [("reasoning", "Hm."), ("message", '{"a": "<think>x</think><tool_call>"}')]
    assert folded.json["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


BEGUN = THINKS + "<think>"


@pytest.mark.parametrize("fields", [{"tools": [WEATHER], "tool_choice": NAMED}, {"text": {"format": FORMAT}}])
async def test_enforced_answer_follows_reasoning_that_prompt_opened(fields: dict[str, Any]) -> None:
    streamed, folded = await answers(stubborn(b"<think>Hm.</think>\n\nWell."), BEGUN, **fields)
    for items in (output(streamed), folded.json["output"]):
        thought, answer = gist(items)
        assert thought == ("reasoning", "Hm.")
        assert json.loads(answer[-1])["city"] in ("Rome", "Oslo", "Paris")


@pytest.mark.parametrize(
    ("text", "kind"),
    [(call("get_weather", '{"city": "Rome"}'), "function_call"), ('{"city": "Oslo", "sunny": true}', "message")],
)
async def test_format_beside_tools_gives_call_or_json(text: str, kind: str) -> None:
    streamed, folded = await answers(writes(text), tools=[WEATHER], text={"format": FORMAT})
    for items in (output(streamed), folded.json["output"]):
        assert [item["type"] for item in items] == [kind]


@pytest.mark.slow
async def test_formatted_json_that_looks_like_call_is_text() -> None:
    text = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
    plain = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
    _, folded = await answers(writes(text), plain, tools=[WEATHER], text={"format": {"type": "json_object"}})
    assert gist(folded.json["output"]) == [("message", text)]


ADDRESSED = (
    "{% if tools %}>>>${recipient} {{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}>>>all\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}>>>{{ c.function.name }}\n{{ c.function.arguments }}{% endfor %}{% endfor %}"
    "<|assistant|>>>>"
)


@pytest.mark.parametrize(
    ("text", "fields", "kinds"),
    [
        ("all\nWell.", {}, ["message"]),
        ("all\nWell.", {"tools": [WEATHER]}, ["message"]),
        ("all\nWell.", {"tools": [WEATHER], "tool_choice": NAMED}, ["function_call"]),
        ("get_weather\n{}", {"tools": [WEATHER]}, ["function_call"]),
        ('all\nWell.>>>get_weather\n{"city": "Paris"}', {"tools": [WEATHER]}, ["message", "function_call"]),
        ('all\n{"city": "Oslo"}', {"text": {"format": FORMAT}}, ["message"]),
        ("get_weather\n{}", {"tools": [WEATHER], "text": {"format": FORMAT}}, ["function_call"]),
    ],
)
async def test_answer_that_prompt_has_begun_to_address_is_enforced(text: str, fields: Any, kinds: list[str]) -> None:
    streamed, folded = await answers(stubborn(f">>>{text}".encode()), ADDRESSED, parallel_tool_calls=False, **fields)
    assert gist(output(streamed)) == gist(folded.json["output"])
    assert [kind for kind, *_ in gist(folded.json["output"])] == kinds
    for kind, *_, text in gist(folded.json["output"]):
        if kind == "function_call" or "text" in fields:
            assert json.loads(text)["city"] in ("Rome", "Oslo", "Paris")[: 3 if kind == "message" else 2]
        else:
            assert text == "Well."


SELF = (
    "{# <atem:invoke name= <|eom|> #}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning %}assistant to=self<|message|>"
    "{{ m.reasoning }}<|eom|>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{% endfor %}<|assistant|>"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "message"),
        ({"tools": [WEATHER]}, "message"),
        ({"tools": [WEATHER], "tool_choice": NAMED}, "function_call"),
        ({"text": {"format": FORMAT}}, "message"),
    ],
)
async def test_answer_after_message_to_itself_is_enforced(fields: Any, kind: str) -> None:
    text = b" to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Well."
    streamed, folded = await answers(stubborn(text), SELF, max_output_tokens=400, **fields)
    assert gist(output(streamed)) == gist(folded.json["output"])
    thought, answer = gist(folded.json["output"])[:2]
    assert (thought, answer[0]) == (("reasoning", "Hm."), kind)
    if kind == "function_call" or "text" in fields:
        assert json.loads(answer[-1])["city"] in ("Rome", "Oslo", "Paris")
    else:
        assert answer[-1] == "Well."


@pytest.mark.slow
async def test_reasoning_over_its_budget_is_ended() -> None:
    """The effort sets the budget, since the template has no variable for it."""
    template = THINKS.replace("{% if enable_thinking is defined %}", "{% if false %}")
    text = b"<think>" + b"on and on " * 40 + b"</think>Yes."
    async with served(stubborn(text), template=template) as running:
        bound, free = [
            await post(running, input="Is it?", reasoning={"effort": effort}, max_output_tokens=500)
            for effort in ("minimal", "high")
        ]
    thought = [len(answer.json["output"][0]["content"][0]["text"]) for answer in (bound, free)]
    assert 100 < thought[0] < 160 < 350 < thought[1]
    assert [answer.json["reasoning"]["effort"] for answer in (bound, free)] == ["minimal", None]


async def test_strict_is_echoed_for_every_enforced_tool() -> None:
    """`strict` is true for every enforced tool, requested or not."""
    tools = [WEATHER, {**WEATHER, "name": "loose", "strict": None}, TIME, {**TIME, "name": "b", "parameters": BAD}]
    _, folded = await answers(stubborn(), tools=tools)
    assert [tool["strict"] for tool in folded.json["tools"]] == [True, True, True, False]
    assert gist(folded.json["output"]) == [("message", "Well.")]


LOOSENED: list[tuple[dict[str, Any], str]] = [
    ({"type": "integer", "not": {"multipleOf": 3}}, "a.not"),
    ({"type": "integer", "oneOf": [{"minimum": 3}, {"multipleOf": 2}]}, "a.oneOf"),
    ({"$ref": "#/$defs/n"}, "$defs.n.not"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("inner", "place"), LOOSENED)
async def test_unenforceable_keyword_leaves_the_other_keywords_enforced(inner: dict[str, Any], place: str) -> None:
    definitions = {"$defs": {"n": {"type": "integer", "not": {"multipleOf": 3}}}}
    schema = {"type": "object", "properties": {"a": inner, "b": {"enum": ["x"]}}, "required": ["b"], **definitions}
    tools = [TIME, {**TIME, "name": "loose", "parameters": schema}]
    fields: dict[str, Any] = {"tools": tools, "tool_choice": {"type": "function", "name": "loose"}}
    streamed, folded = await answers(writes(call("loose", '{"a": 5, "b": [1]}')), **fields)
    for items in (output(streamed), folded.json["output"]):
        ((_, _, arguments),) = gist(items)
        assert json.loads(arguments)["b"] == "x"
        assert isinstance(json.loads(arguments).get("a", 0), int)
    place = place if place.startswith("$") else f"properties.{place}"
    extensions = {"unenforced": [f"tools[1].parameters.{place}"]}
    assert folded.json["responsed"] == streamed.events[-1]["response"]["responsed"] == extensions
    assert [tool["strict"] for tool in folded.json["tools"]] == [True, False]


@pytest.mark.slow
async def test_format_beside_null_leaves_tool_strict() -> None:
    schema = {"type": "object", "properties": {"a": {"type": ["integer", "null"], "format": "uint32"}}}
    _, folded = await answers(
        writes(call("get_time", '{"a": "x"}')), tools=[{**TIME, "parameters": schema}], tool_choice="required"
    )
    assert json.loads(gist(folded.json["output"])[0][2]).get("a", 0) in (None, *range(10))
    assert folded.json["tools"][0]["strict"] is True
    assert "responsed" not in folded.json


OPEN: list[dict[str, Any]] = [
    {"required": ["b"], "properties": {"a": {}}},
    {"additionalProperties": {}, "properties": {"a": {}}},
    {"minProperties": 1, "properties": {}},
    {"propertyNames": {"pattern": "^b"}},
    {"patternProperties": {"^b": {}}},
    {"$ref": "#/$defs/any", "$defs": {"any": {"type": "object"}}},
]


@pytest.mark.slow
@pytest.mark.parametrize("schema", OPEN)
async def test_unnamed_properties_are_allowed_if_schema_mentions_others(schema: dict[str, Any]) -> None:
    text = call("get_time", '{"b": 1}')
    _, folded = await answers(writes(text), tools=[{**TIME, "parameters": schema}], tool_choice="required")
    assert gist(folded.json["output"])[0] == ("function_call", "get_time", '{"b": 1}')
    assert folded.json["tools"][0]["strict"] is True


@pytest.mark.parametrize(
    "schema",
    [None, {}, {"type": "object", "title": "x"}, {"properties": None}, {"properties": {}}, {"properties": {"a": {}}}],
)
async def test_unnamed_properties_are_forbidden_if_schema_mentions_none(schema: Any) -> None:
    text = call("get_time", '{"b": 1}')
    fields: dict[str, Any] = {"tools": [{**TIME, "parameters": schema}], "tool_choice": "required"}
    _, folded = await answers(writes(text), **fields, parallel_tool_calls=False)
    ((_, _, arguments),) = gist(folded.json["output"])
    assert set(json.loads(arguments)) <= {"a"}


@pytest.mark.slow
async def test_custom_tool_in_chat_completions_is_enforced() -> None:
    form = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[a-c]{2}"}}
    tool = {"type": "custom", "custom": {"name": "code", "format": form}}
    choice = {"type": "custom", "custom": {"name": "code"}}
    asked = encode(messages=[{"role": "user", "content": "So?"}], tools=[tool], tool_choice=choice)
    async with served(stubborn(), template=HERMES) as running:
        answer = await exchange(running, "POST", "/v1/chat/completions", asked)
    (made,) = answer.json["choices"][0]["message"]["tool_calls"]
    assert made["custom"]["name"] == "code"
    assert re.fullmatch("[a-c]{2}", made["custom"]["input"])


@pytest.mark.slow
async def test_prompt_has_the_schema_unless_a_call_is_demanded() -> None:
    """The schema is left out if a call is demanded, and introduced by a condition if a call is possible."""
    schema = f"with JSON only, as this JSON schema says:\n{json.dumps(SCHEMA)}"
    expected: list[tuple[dict[str, Any], str]] = [
        ({}, f"Answer {schema}Where?"),
        ({"tools": [TIME]}, f"If you call no function, answer {schema}Where?"),
        ({"tools": [TIME], "tool_choice": "required"}, "}Where?"),
    ]
    for fields, ending in expected:
        async with served(stubborn(), template=HERMES) as running:
            await post(running, input="Where?", text={"format": FORMAT}, max_output_tokens=1, **fields)
            prompt = evaluated(running).decode()
        assert prompt.endswith(ending)
        assert ("JSON schema" in prompt) == ("JSON schema" in ending)


@pytest.mark.slow
async def test_call_that_is_cut_in_its_name_is_no_item() -> None:
    text = call("get_weather")
    streamed, folded = await answers(writes(text), tools=[WEATHER], max_output_tokens=text.index("_weather"))
    for response in (streamed.events[-1]["response"], folded.json):
        assert (response["status"], gist(response["output"])) == ("incomplete", [("message", "")])
