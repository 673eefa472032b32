"""`POST /v1/chat/completions` over a socket, and by the official client."""

import json
from typing import Any

import pytest
import trio
from openai.types.chat import ChatCompletionChunk

from tests.server.api.tools.test_tools import HERMES, WEATHER, call, evaluated, writes
from tests.support.helpers import NAME, Running, encode, exchange, official_client, served

HI: Any = [{"role": "user", "content": "Hello there"}]


def streamed(url: str) -> list[ChatCompletionChunk]:
    with official_client(url) as client:
        options: Any = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5}
        return list(client.chat.completions.create(model=NAME, messages=HI, **options))


async def post(running: Running, **body: Any) -> Any:
    return await exchange(running, "POST", "/v1/chat/completions", encode(**body))


async def test_chat_completion_has_expected_body() -> None:
    async with served() as running:
        answer = await post(running, messages=HI)
        assert answer.status == 200
        body = answer.json
        assert body["choices"] == [
            {
                "message": {"content": "Hello there", "refusal": None, "role": "assistant"},
                "finish_reason": "stop",
                "index": 0,
                "logprobs": None,
            }
        ]
        assert body["model"] == NAME
        assert body["usage"]["completion_tokens"] == len("Hello there") + 1


@pytest.mark.slow
async def test_chat_stream_fits_official_client() -> None:
    async with served() as running:
        chunks = await trio.to_thread.run_sync(streamed, running.url)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello"
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 5


def contents(url: str) -> tuple[str | None, str | None]:
    """Return the content of the official client's message, streamed and whole."""
    with official_client(url) as client:
        asked: Any = {"model": NAME, "messages": HI, "tools": [{"type": "function", "function": FUNCTION}]}
        with client.chat.completions.stream(**asked) as stream:
            final = stream.get_final_completion()
        whole = client.chat.completions.create(**asked)
    return final.choices[0].message.content, whole.choices[0].message.content


FUNCTION = {name: value for name, value in WEATHER.items() if name != "type"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "content"),
    [(call("get_weather"), None), ("Hm." + call("get_weather"), "Hm."), ("Sunny.", "Sunny."), ("", "")],
    ids=["only a call", "text before a call", "text", "nothing"],
)
async def test_streamed_message_has_content_of_whole_one(reply: str, content: str | None) -> None:
    async with served(writes(reply), template=HERMES) as running:
        assert await trio.to_thread.run_sync(contents, running.url) == (content, content)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": HI, "n": 2}, "n"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages"),
        ({"messages": HI, "model": "gpt"}, "model"),
    ],
)
async def test_invalid_chat_completion_names_the_field(fields: dict[str, Any], param: str) -> None:
    async with served() as running:
        answer = await post(running, **fields)
        assert (answer.status // 100, answer.json["error"]["param"]) == (4, param)


VARIABLES = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}QUIET{% endif %}{{ mood }}{{ list|tojson if list }}"
    "<|assistant|>"
)


@pytest.mark.parametrize(
    ("variables", "more"),
    [
        ({"enable_thinking": False}, b"QUIET"),
        ({"enable_thinking": True}, b""),
        ({"mood": "calm", "unused": None}, b"calm"),
        ({"list": [1, {"a": "b"}]}, b'[1, {"a": "b"}]'),
        ({"mood": "<|end|>"}, b"<|end|>"),  # text, which never becomes a control token
        ({}, b""),
    ],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_template_variables_reach_the_template(path: str, variables: dict[str, Any], more: bytes) -> None:
    content: dict[str, Any] = {"messages": HI} if "chat" in path else {"input": HI}
    async with served(template=VARIABLES) as running:
        answer = await exchange(running, "POST", path, encode(**content, chat_template_kwargs=variables))
        assert answer.status == 200, answer.body
        assert evaluated(running) == b"Hello there" + more


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"messages": []}, "`chat_template_kwargs.messages` is set by the server: leave it out."),
        ({"tools": []}, "`chat_template_kwargs.tools` is set by the server: leave it out."),
        ({"bos_token": "x"}, "`chat_template_kwargs.bos_token` is set by the server: leave it out."),
        (
            {"add_generation_prompt": False},
            "`chat_template_kwargs.add_generation_prompt` is set by the server: leave it out.",
        ),
        ({"a b": 1}, "`chat_template_kwargs` has the key 'a b'; a key must be an identifier."),
        ({"": 1}, "`chat_template_kwargs` has the key ''; a key must be an identifier."),
    ],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_template_variables_of_the_server_are_rejected(
    path: str, variables: dict[str, Any], message: str
) -> None:
    content: dict[str, Any] = {"messages": HI} if "chat" in path else {"input": HI}
    async with served() as running:
        answer = await exchange(running, "POST", path, encode(**content, chat_template_kwargs=variables))
    assert (answer.status, answer.json["error"]["message"]) == (400, message)
    assert answer.json["error"]["param"] == "chat_template_kwargs"


@pytest.mark.slow
async def test_chat_answer_of_the_batch_lane_names_it() -> None:
    found = []
    async with served() as running:
        for tier in ("flex", "priority"):
            whole = await post(running, messages=HI, service_tier=tier)
            frames_of = await post(running, messages=HI, service_tier=tier, stream=True)
            frames = [json.loads(line[6:]) for line in frames_of.body.splitlines() if line.startswith(b"data: {")]
            found.append((whole.json.get("service_tier"), {frame.get("service_tier") for frame in frames}))
    assert found == [("flex", {"flex"}), (None, {None})]
