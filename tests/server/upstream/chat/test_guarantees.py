"""Guarantees before an upstream: its output is verified, asked for once more, or ends as failed."""

from typing import Any

import pytest

from tests.server.upstream.scripted_upstream import HEAD, Play, call, delta, end, fronted, plays, says
from tests.support.helpers import post

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FORMAT = {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}}}
UNKNOWN = {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"unevaluatedItems": False}}}}
TOOL = {"type": "function", "name": "go", "parameters": SCHEMA, "strict": True}
TOOLS: dict[str, Any] = {"tools": [TOOL]}
REQUIRED = TOOLS | {"tool_choice": "required"}
DIGITS = {"type": "custom", "name": "dial", "format": {"type": "grammar", "syntax": "regex", "definition": "[0-9]+"}}


def calls(*arguments: str, name: str = "go") -> Play:
    return plays(
        HEAD, call(0, name, arguments[0]), *(call(0, arguments=part) for part in arguments[1:]), end("tool_calls")
    )


GOOD: list[tuple[dict[str, Any], Play]] = [
    (FORMAT, says('{"city":', '"Rome"}')),
    (FORMAT, says('\n{ "city" : "\\u0052ome" }\n')),
    (FORMAT, plays(HEAD, delta(content='{"ci'), end("length"))),
    (FORMAT | {"stop": "}"}, says('{"city":"Rome"')),
    (FORMAT | TOOLS, calls('{"city":"Oslo"}')),
    ({"text": {"format": {"type": "json_object"}}}, says('{"any":[1]}')),
    (TOOLS, calls('{"city"', ':"Rome"}')),
    (REQUIRED, plays(HEAD, delta(content="I call."), call(0, "go", '{"city":"Rome"}'), end("tool_calls"))),
    ({"tools": [TOOL | {"strict": False}]}, calls('{"town":1}')),
    ({"tools": [DIGITS]}, calls('{"input":"112"}', name="dial")),
]
FIRST: list[tuple[dict[str, Any], Play]] = [
    (FORMAT, says("Sure: {")),
    (FORMAT, says('{"town"')),
    (FORMAT, says("")),
    ({"text": {"format": {"type": "json_object"}}}, says("[]")),
    (TOOLS, calls('{"city":"Bonn"}')),
    (REQUIRED, says("No.")),
    ({"tools": [DIGITS]}, calls('{"input":"abc"}', name="dial")),
]
LATER: list[tuple[dict[str, Any], Play]] = [
    (FORMAT, says('{"city":', '"Bonn"}')),
    (FORMAT, says('{"city":"Rome"')),
    (FORMAT, says('{"city":"Rome"}', " Done.")),
    (TOOLS, calls('{"city"', ":7}")),
    (TOOLS, calls("{", "}")),
    (TOOLS, calls("")),
    ({"tools": [DIGITS]}, calls('{"input":"1', '2x"}', name="dial")),
]


@pytest.mark.parametrize(("fields", "play"), GOOD)
async def test_output_that_matches_passes(fields: dict[str, Any], play: Play) -> None:
    async with fronted(play) as front:
        response = (await post(front, model="m", input="Hi", stream=True, **fields)).events[-1]["response"]
    assert (response["status"] in ("completed", "incomplete"), len(front.asked)) == (True, 1)


@pytest.mark.parametrize(("fields", "play"), FIRST)
async def test_mismatch_before_anything_streamed_is_asked_for_once_more(fields: dict[str, Any], play: Play) -> None:
    async with fronted(play) as front:
        response = (await post(front, model="m", input="Hi", stream=True, **fields)).events[-1]["response"]
    assert (response["status"], response["responsed"]["fault"]) == ("failed", "output_mismatch")
    assert (response["output"], len(front.asked)) == ([], 2)


@pytest.mark.parametrize(("fields", "play"), FIRST + LATER)
async def test_mismatch_without_stream_has_its_code(fields: dict[str, Any], play: Play) -> None:
    async with fronted(play) as front:
        answer = await post(front, model="m", input="Hi", **fields)
    assert (answer.status, answer.json["error"]["code"]) == (502, "output_mismatch")


async def test_second_answer_counts_if_the_first_one_mismatches() -> None:
    async with fronted(says("Sure!"), says('{"city":"Oslo"}')) as front:
        assert (await post(front, model="m", input="Hi", **FORMAT)).text == '{"city":"Oslo"}'


@pytest.mark.parametrize(("fields", "play"), LATER)
async def test_mismatch_in_the_stream_fails_the_response(fields: dict[str, Any], play: Play) -> None:
    async with fronted(play) as front:
        response = (await post(front, model="m", input="Hi", stream=True, **fields)).events[-1]["response"]
    assert (response["status"], response["responsed"]["fault"]) == ("failed", "output_mismatch")
    assert ([item["status"] for item in response["output"]], len(front.asked)) == (["incomplete"], 1)


async def test_upstream_gets_the_schemas_that_are_verified() -> None:
    parameters = {"properties": SCHEMA["properties"], "required": SCHEMA["required"]}
    async with fronted(calls('{"input":"112"}', name="dial")) as front:
        await post(front, model="m", input="Hi", tools=[TOOL | {"parameters": parameters}, DIGITS])
    sent = [tool["function"]["parameters"] for tool in front.asked[0].body["tools"]]
    assert sent[0] == {"type": "object", "additionalProperties": False} | parameters
    assert sent[1]["properties"] == {"input": {"type": "string", "pattern": "^([0-9]+)$"}}


async def test_strict_is_echoed_as_it_is_verified() -> None:
    loose = TOOL | {"name": "roam", "strict": False}
    async with fronted(says('{"city":"Rome"}')) as front:
        response = (await post(front, model="m", input="Hi", tools=[TOOL, loose], **FORMAT)).json
    assert [tool["strict"] for tool in response["tools"]] == [True, False]
    assert response["text"]["format"]["strict"] is True
    assert response["responsed"] == {"unenforced": ["tools[1].parameters"]}
    body = front.asked[0].body
    assert [tool["function"].get("strict") for tool in body["tools"]] == [True, None]
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "place", "schema": SCHEMA, "strict": True},
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"text": {"format": FORMAT["text"]["format"] | {"schema": {"unevaluatedItems": False}}}},
            "text.format.schema",
        ),
        ({"tools": [TOOL | {"parameters": {"properties": {"a": {"pattern": "(a+)+"}}}}]}, "tools[0].parameters"),
    ],
)
async def test_schema_that_cannot_be_verified_is_refused(fields: dict[str, Any], param: str) -> None:
    async with fronted(says("-")) as front:
        answer = await post(front, model="m", input="Hi", **fields)
    assert (answer.status, answer.json["error"]["param"], front.asked) == (400, param, [])


async def test_missing_call_is_an_error_without_stream() -> None:
    async with fronted(says("No.")) as front:
        answer = await post(front, model="m", input="Hi", **REQUIRED)
    assert (answer.status, answer.json["error"]["code"]) == (502, "output_mismatch")


async def test_summary_is_not_refused_for_a_tool_that_it_does_not_call() -> None:
    """As with a model in this process: the tools are part of the prompt, and nothing is enforced."""
    wrong = {"type": "function", "name": "go", "parameters": {"type": "string"}, "strict": True}
    items = [{"role": "user", "content": "Hi"}, {"type": "compaction_trigger"}]
    async with fronted(says("They greet.")) as front:
        answer = await post(front, model="m", input=items, tools=[wrong])
        refused = await post(front, model="m", input=items[:1], tools=[wrong])
    assert (answer.status, answer.json["output"][0]["type"]) == (200, "compaction")
    assert front.asked[0].body["tools"][0]["function"]["parameters"] == {"type": "string"}
    assert (refused.status, refused.json["error"]["param"]) == (400, "tools[0].parameters")
