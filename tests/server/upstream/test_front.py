"""A daemon before an upstream: requests of the Responses API become chat completions, and their answers come back."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.server.upstream.scripted_upstream import HEAD, LAST, USAGE, call, delta, end, event, fronted, plays, says
from tests.support.helpers import Client, encode, exchange, get, post

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SHELL = {"type": "custom", "name": "run", "description": "Run it."}
SPACE = {"type": "namespace", "name": "maps", "tools": [WEATHER | {"name": "route"}]}


async def test_text_streams_with_its_usage() -> None:
    async with fronted(says("Hel", "lo")) as front:
        answer = await post(front, model="m", input="Hi", stream=True, temperature=0.5)
    response = answer.events[-1]["response"]
    assert (answer.text, response["status"], response["temperature"]) == ("Hello", "completed", 0.5)
    assert response["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
    }
    (asked,) = front.asked
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
    }


async def test_top_p_of_0_is_sent_as_a_number_that_all_servers_take() -> None:
    """vLLM and SGLang refuse 0."""
    async with fronted(says("Hello")) as front:
        await post(front, model="m", input="Hi", top_p=0)
    assert front.asked[0].body["top_p"] == 1e-6


async def test_stored_stream_has_the_bytes_that_were_sent(tmp_path: Path) -> None:
    async with fronted(says("Hello"), state=tmp_path) as front:
        live = await post(front, model="m", input="Hi", stream=True)
        replayed = await get(front, f"/v1/responses/{live.events[-1]['response']['id']}?stream=true")
    assert replayed.body == live.body


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning_becomes_an_item(field: str) -> None:
    async with fronted(plays(HEAD, delta(**{field: "Hm."}), delta(content="Yes"), end())) as front:
        response = (await post(front, model="m", input="Hi", reasoning={"effort": "low"})).json
    assert [(item["type"], item["content"][0]["text"]) for item in response["output"]] == [
        ("reasoning", "Hm."),
        ("message", "Yes"),
    ]
    assert front.asked[0].body["reasoning_effort"] == "low"


async def test_tools_travel_as_functions_and_return_as_they_were() -> None:
    played = plays(
        HEAD,
        delta(content="Let me see."),
        call(0, "weather", '{"city":'),
        call(0, arguments='"Rome"}'),
        call(1, "run", '{"input":"ls"}'),
        call(2, "maps__route", '{"city":"Oslo"}'),
        end("tool_calls"),
    )
    async with fronted(played) as front:
        answer = await post(front, model="m", input="Go", tools=[WEATHER, SHELL, SPACE], stream=True)
    output = answer.events[-1]["response"]["output"]
    fields = ("type", "name", "namespace", "arguments", "input")
    assert [{name: item[name] for name in fields if name in item} for item in output[1:]] == [
        {"type": "function_call", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "custom_tool_call", "name": "run", "input": "ls"},
        {"type": "function_call", "name": "route", "namespace": "maps", "arguments": '{"city":"Oslo"}'},
    ]
    sent = front.asked[0].body["tools"]
    assert [each["type"] for each in sent] == ["function"] * 3
    assert [each["function"]["name"] for each in sent] == ["weather", "run", "maps__route"]
    assert sent[0]["function"]["parameters"] == WEATHER["parameters"]


async def test_second_call_ends_an_answer_without_parallel_calls() -> None:
    two = plays(HEAD, call(0, "weather", "{}"), call(1, "weather", "{}"), end("tool_calls"))
    async with fronted(two) as front:
        answer = await post(front, model="m", input="Go", tools=[WEATHER], parallel_tool_calls=False)
    assert (answer.json["status"], len(answer.json["output"])) == ("completed", 1)
    assert front.asked[0].body["parallel_tool_calls"] is False


async def test_conversation_goes_on_with_calls_and_their_outputs(tmp_path: Path) -> None:
    first = plays(HEAD, call(0, "weather", '{"city":"Rome"}'), end("tool_calls"))
    async with fronted(first, says("Sunny."), state=tmp_path) as front:
        one = (await post(front, model="m", input="Weather?", tools=[WEATHER])).json
        output = {"type": "function_call_output", "call_id": one["output"][0]["call_id"], "output": "sun"}
        two = await post(front, model="m", input=[output], previous_response_id=one["id"], tools=[WEATHER])
        stored = await get(front, f"/v1/responses/{two.json['id']}")
    id_ = one["output"][0]["call_id"]
    function = {"name": "weather", "arguments": '{"city":"Rome"}'}
    assert front.asked[1].body["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": id_, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": id_, "content": "sun"},
    ]
    assert (two.text, stored.text) == ("Sunny.", "Sunny.")


@pytest.mark.parametrize(
    ("finish", "fields", "expected"),
    [
        ("length", {}, ("incomplete", {"reason": "max_output_tokens"}, None)),
        ("content_filter", {}, ("incomplete", {"reason": "content_filter"}, None)),
        ("stop", {"stop_reason": "END"}, ("incomplete", None, "END")),
        ("stop", {"stop_reason": 7}, ("completed", None, None)),
    ],
)
async def test_finish_reason_decides_the_status(finish: str, fields: dict[str, Any], expected: object) -> None:
    choice = {"delta": {}, "finish_reason": finish} | fields
    last = event({"choices": [choice], "usage": USAGE}) + event(b"[DONE]") + LAST
    async with fronted(plays(HEAD, delta(content="So"), last)) as front:
        response = (await post(front, model="m", input="Hi", stop="END")).json
    assert (response["status"], response["incomplete_details"], response.get("responsed", {}).get("stop")) == expected
    assert front.asked[0].body["stop"] == "END"


@pytest.mark.parametrize("stream", [False, True])
async def test_filtered_answer_is_not_complete_in_chat(stream: bool) -> None:
    async with fronted(plays(HEAD, delta(content="So"), end("content_filter"))) as front:
        body = encode(model="m", messages=[{"role": "user", "content": "Hi"}], stream=stream)
        answer = await exchange(front, "POST", "/v1/chat/completions", body)
    last = json.loads(answer.body.split(b"data: ")[-2]) if stream else answer.json
    assert last["choices"][0]["finish_reason"] == "content_filter"


async def test_upstream_that_ignores_the_limit_is_cut_there() -> None:
    async with fronted(plays(HEAD, *[delta(content="x")] * 50, end())) as front:
        response = (await post(front, model="m", input="Hi", max_output_tokens=5)).json
    assert (response["status"], response["usage"]["output_tokens"]) == ("incomplete", 5)
    assert response["output"][0]["content"][0]["text"] == "xxxxx"
    assert front.asked[0].body["max_tokens"] == 5


async def test_upstream_that_ends_at_the_limit_reports_its_usage() -> None:
    """The usage comes behind the last delta."""
    async with fronted(plays(HEAD, *[delta(content="x")] * 5, end("length"))) as front:
        response = (await post(front, model="m", input="Hi", max_output_tokens=5)).json
    assert (response["status"], response["usage"]["input_tokens"]) == ("incomplete", 9)


async def test_text_that_is_left_out_counts_as_output() -> None:
    """Text around a demanded call is no part of the response."""
    async with fronted(plays(HEAD, *[delta(content="x")] * 9, end("length"))) as front:
        fields = {"tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 5}
        response = (await post(front, model="m", input="Hi", **fields)).json
    assert (response["status"], response["usage"]["output_tokens"]) == ("incomplete", 5)


async def test_chat_completions_pass_too() -> None:
    async with fronted(says("Hello")) as front:
        body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
        answer = await exchange(front, "POST", "/v1/chat/completions", body)
    assert answer.json["choices"][0]["message"]["content"] == "Hello"


async def test_conversation_is_compacted_by_a_summary() -> None:
    async with fronted(says("They greeted.")) as front:
        answer = await exchange(front, "POST", "/v1/responses/compact", b'{"model":"m","input":"Hello"}')
    assert [item["type"] for item in answer.json["output"]] == ["message", "compaction"]
    assert front.asked[0].body["messages"][0] == {"role": "user", "content": "Hello"}


async def test_prompts_that_need_tokens_are_refused_or_estimated() -> None:
    async with fronted(says("-")) as front:
        text = await exchange(front, "POST", "/v1/completions", b'{"prompt":"Once"}')
        count = await exchange(front, "POST", "/v1/responses/input_tokens", b'{"input":"Hello, how are you?"}')
        lark = SHELL | {"format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}}
        grammar = await post(front, model="m", input="Hi", tools=[lark])
        warm = await post(front, model="m", input="Hi", prompt_cache_options={"prewarm": True})
    assert (text.status, text.json["error"]["param"]) == (400, "prompt")
    assert count.json["input_tokens"] == 10
    assert (grammar.status, grammar.json["error"]["param"]) == (400, "tools[0].format")
    assert (warm.json["status"], warm.json["output"], front.asked) == ("completed", [], [])


async def test_hang_up_closes_the_request_to_the_upstream() -> None:
    async with fronted(plays(HEAD, delta(content="So"), 60.0)) as front:
        async with await Client.to(front) as client:
            await client.create(model="m", input="Hi", stream=True)
            await client.head()
            await client.frame("response.output_text.delta")
            await client.leave()
        with trio.fail_after(5):
            await front.upstreams[0].left.wait()


async def test_connections_are_kept_for_the_next_request() -> None:
    async with fronted(says("a"), says("b"), says("c")) as front:
        texts = [(await post(front, model="m", input="Hi")).text for _ in range(3)]
    assert (texts, front.upstreams[0].connections) == (["a", "b", "c"], 1)


async def test_key_is_sent_to_the_upstream_only() -> None:
    async with fronted(says("a"), key="sk-upstream") as front:
        await exchange(front, "POST", "/v1/responses", b'{"input":"Hi"}', "Authorization: Bearer sk-client")
    assert front.asked[0].headers["authorization"] == "Bearer sk-upstream"
