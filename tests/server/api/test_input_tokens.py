"""`POST /v1/responses/input_tokens`: count the prompt of a response without generating it."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from openai.types.responses import InputTokenCountResponse

from engine.backends.scripted import ScriptedModel
from tests.server.api.stored.test_references import reference
from tests.server.api.stored.test_stored_responses import msg, seen
from tests.support.helpers import NAME, Answer, Running, encode, exchange, official_client, post, served

TALK = [
    msg("developer", "Be kind."),
    msg("user", "Hello"),
    msg("assistant", "Hi"),
    msg("user", "x" * 100),
]
CALLED = [
    msg("user", "Hot?"),
    {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "a", "output": "21 C"},
]


async def count(running: Running, **body: Any) -> Answer:
    return await exchange(running, "POST", "/v1/responses/input_tokens", encode(**body))


async def requests(running: Running) -> list[dict[str, Any]]:
    first = (await post(running, input=TALK)).json
    last = {"previous_response_id": first["id"]}
    made = await exchange(running, "POST", "/v1/conversations", json.dumps({"items": TALK}).encode())
    return [
        {"input": "Hello"},
        {"input": "Hello", "instructions": "I", "stream": True, "max_output_tokens": 1, "metadata": {"a": "b"}},
        {"input": TALK},
        {"input": CALLED},
        {"input": "And?", **last},
        {**last},
        {"input": [reference(first["output"][0]["id"]), msg("user", "And?")]},
        {"input": "And?", **last, "truncation": "auto"},
        {"input": "And?", "conversation": made.json["id"]},
        {"input": TALK * 9, "truncation": "auto"},
        {"input": TALK * 9, "truncation": "auto", "max_output_tokens": 200},
    ]


@pytest.mark.slow
async def test_input_tokens_equal_usage_of_response(tmp_path: Path) -> None:
    async with served(ScriptedModel(n_ctx=1000), state=tmp_path) as running:
        for body in await requests(running):
            decoded = list(running.model.decoded)
            counted = await count(running, **body)
            assert running.model.decoded == decoded
            used = (await post(running, **body | {"stream": False})).json["usage"]["input_tokens"]
            assert seen(counted) == (200, {"input_tokens": used, "object": "response.input_tokens"})


@pytest.mark.slow
async def test_input_tokens_beyond_context_are_counted() -> None:
    async with served(ScriptedModel(n_ctx=60)) as running:
        for n in (57, 58, 70_000):
            assert (await count(running, input="x" * n)).json["input_tokens"] == n + 2


WRONG: list[dict[str, Any]] = [
    {"input": "Hi", "model": "gpt"},
    {"input": []},
    {},
    {"input": "Hi", "truncation": "always"},
    {"input": "Hi", "previous_response_id": "resp_x"},
    {"input": [reference("msg_x")]},
    {"input": [{"role": "boss", "content": "Hi"}]},
]


@pytest.mark.parametrize("body", WRONG, ids=str)
async def test_input_tokens_rejects_as_responses_does(body: dict[str, Any], tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        refused = seen(await post(running, **body))
        assert refused[0] in (400, 404)
        assert seen(await count(running, **body)) == refused


def counted(url: str) -> InputTokenCountResponse:
    with official_client(url) as client:
        return client.responses.input_tokens.count(model=NAME, input="Hello", instructions="I", tools=[])


async def test_input_tokens_by_official_client_are_counted() -> None:
    async with served() as running:
        found = await trio.to_thread.run_sync(counted, running.url)
    assert found == InputTokenCountResponse(input_tokens=len("<I<Hello<"), object="response.input_tokens")
