"""Answers by upstreams that continue tokens: equal to those of the embedded engine, whichever server writes them."""

from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from tests.rows import thinned
from tests.server.api.test_reasoning import THINKS
from tests.server.upstream.fronts import token_fronting
from tests.server.upstream.tokens.forms import FORMS
from tests.support import wire
from tests.support.helpers import get, post, served

pytestmark = pytest.mark.slow

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FORMAT = {"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}}
LETTERS = {"type": "string", "pattern": r"^[\u1000-\u1fff]{4}$"}
WORD = {
    "format": {
        "type": "json_schema",
        "name": "word",
        "schema": {"type": "object", "properties": {"word": LETTERS}, "required": ["word"]},
        "strict": False,
    }
}
"""Format of characters of three bytes, which are a token each, so that two choices are equal within a character."""
TOOL = {"type": "function", "name": "look_up", "parameters": CITY, "strict": True}
CALL = '{"name": "look_up", "arguments": {"city": "Rome", "people": 5}}'
MARKED = f"<tool_call>\n{CALL}\n</tool_call>"
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"+ "b"'}
GREEDY = {"temperature": 0}
KINDS = pytest.mark.parametrize("kind", thinned({kind: kind for kind in FORMS}, 2))
REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"input": "Hello, wörld 😀!"},
    "limit": {"input": "Hello", "max_output_tokens": 3},
    "half a character": {"input": "a😀", "max_output_tokens": 3},
    "stop": {"input": "one two three", "stop": ["two"]},
    "logprobs": {"input": "Hi", "top_logprobs": 2, "include": ["message.output_text.logprobs"]},
    "format": {"input": "It is a city.", "text": FORMAT, "max_output_tokens": 90},
    "format that is written": {"input": '{"city":"Rome","people":2800000}', "text": FORMAT},
    "format with logprobs": {"input": '{"city":"a","people":1}', "text": FORMAT, "top_logprobs": 1},
    "format of long characters": {
        "input": "Hello",
        "text": WORD,
        "max_output_tokens": 40,
        "logit_bias": {"92": -100},  # no escapes
    },
    "tool": {"input": MARKED, "tools": [TOOL], "tool_choice": "required", "max_output_tokens": 80},
    "tool by choice": {
        "input": '{"name": "look_up", "arguments": {"city": 7}}',
        "tools": [TOOL],
        "max_output_tokens": 70,
    },
    "Lark": {
        "input": "aaab",
        "tools": [{"type": "custom", "name": "count", "format": LARK}],
        "tool_choice": "required",
        "max_output_tokens": 60,
    },
    "bias": {"input": "Hi", "logit_bias": {"72": -100}, "max_output_tokens": 2},
    "top_p of 0": {"input": "Hi", "top_p": 0},
    "penalty": {"input": "aab", "presence_penalty": 2, "seed": 5},
}


def essence(response: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a response that the generating side decides."""
    output = [{key: item[key] for key in item.keys() - {"id", "call_id"}} for item in response["output"]]
    usage = {**response["usage"], "input_tokens_details": None}
    return {"status": response["status"], "output": output, "usage": usage, "why": response["incomplete_details"]}


@pytest.mark.parametrize("kind", FORMS)
async def test_answers_are_those_of_the_embedded_engine(kind: str) -> None:
    async with served(ScriptedModel()) as embedded, token_fronting(ScriptedModel(), kind=kind) as front:
        for name, request in REQUESTS.items():
            answers = [(await post(each, **GREEDY, **request)).json for each in (embedded, front)]
            wire.check_response(answers[1])
            expected, found = map(essence, answers)
            if "top_logprobs" in request or kind != "llama.cpp":
                # The upstream chooses certain tokens too: for their logprobs, or by the grammar that it gets.
                expected["usage"]["output_tokens_details"].pop("forced_tokens", None)
                found["usage"]["output_tokens_details"].pop("forced_tokens", None)
            assert found == expected, name


@KINDS
async def test_stream_has_the_events_of_a_whole_answer(kind: str) -> None:
    async with token_fronting(ScriptedModel(), kind=kind) as front:
        streamed = await post(front, input=MARKED, tools=[TOOL], tool_choice="required", stream=True, **GREEDY)
        wire.check_stream(streamed.events)
        assert streamed.events[-1]["response"]["output"][0]["arguments"] == '{"city": "Rome", "people": 5}'
        models = (await get(front, "/v1/models")).json["data"][0]["meta"]
    assert models["lacking"] == (["grammar"] if kind == "llama.cpp" else ["repeat_last_n"])


@KINDS
async def test_reasoning_ends_at_its_budget(kind: str) -> None:
    def ponders(message: bytes) -> bytes:
        return b"<think>" + b"Hm, " * 30 + b"</think>Yes."

    request = {"input": "Is it?", "reasoning": {"effort": "minimal"}, "max_output_tokens": 60}
    async with (
        served(ScriptedModel(ponders), template=THINKS) as embedded,
        token_fronting(ScriptedModel(ponders), template=THINKS, kind=kind) as front,
    ):
        expected, found = [essence((await post(each, **GREEDY, **request)).json) for each in (embedded, front)]
    assert found == expected
    assert 0 < found["usage"]["output_tokens_details"]["reasoning_tokens"] < 40


async def test_prompt_is_counted_exactly_and_cached() -> None:
    async with served(ScriptedModel()) as embedded, token_fronting(ScriptedModel()) as front:
        counts = []
        for each in (embedded, front):
            first = (await post(each, input="Hello", store=False, prompt_cache_key="a")).json
            second = (await post(each, input="Hello", store=False, prompt_cache_key="a")).json
            details = [answer["usage"]["input_tokens_details"]["cached_tokens"] for answer in (first, second)]
            counts.append((first["usage"]["input_tokens"], details[0], details[1] > 0))
    assert counts[0] == counts[1]
