"""The whole server on a real socket, with a scripted model."""

import itertools
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import wire
from tests.support.helpers import (
    CREATED,
    NAME,
    Client,
    PacedModel,
    encode,
    exchange,
    post,
    served,
    types,
)

OPENING = ["response.created", "response.in_progress"]
TOO_LARGE = "The body is larger than 1000 bytes; send a smaller one, or start the server with --max-body-megabytes."
SLOW = "No part of the body arrived for 0.05 s; send it without pauses."
MODEL = {
    "id": NAME,
    "created": CREATED,
    "meta": {
        "engine": "scripted",
        "n_ctx": 4096,
        "n_slots": 2,
        "n_vocab": 261,
        "n_ctx_train": 0,
        "n_params": 0,
        "size": 0,
        "quantization": "",
        "sha256": "",
        "capabilities": ["responses", "chat", "tools", "structured_output", "logprobs"],
    },
    "object": "model",
    "owned_by": "responsed",
}


def error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def server_error(message: str, code: str = "server_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


def no_model(name: str) -> dict[str, Any]:
    message = f"There is no model {name!r}; this server has 'scripted' (--alias gives it more names)."
    return error(message, "model", "model_not_found")


async def test_response_streamed_or_not_is_equal() -> None:
    async with served() as running:
        await post(running, input="Hi")  # the other requests find the prompt in the cache
        whole = await post(running, input="Hi")
        streamed = await post(running, input="Hi", stream=True)
    wire.check_response(whole.json)
    assert anonymous(streamed.events[-1]["response"]) == anonymous(whole.json)
    assert streamed.text == "Hi"


def anonymous(response: dict[str, Any]) -> dict[str, Any]:
    """Return the response without the fields that differ each time."""
    items = [item | {"id": ""} for item in response["output"]]
    return response | {"id": "", "created_at": 0, "completed_at": 0, "output": items}


async def test_response_echoes_settings_and_counts_usage() -> None:
    settings: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 2,
        "metadata": {"k": "v"},
        "prompt_cache_key": "p",
        "safety_identifier": "s",
        "temperature": 0.0,
        "top_p": 0.5,
        "presence_penalty": 1.5,
        "frequency_penalty": -0.5,
    }
    async with served(aliases=("*",)) as running:
        first = (await post(running, model="gpt-9", input="Hello", **settings)).json
        again = (await post(running, model="gpt-9", input="Hello", **settings)).json
    assert {name: again[name] for name in settings} == settings
    assert (again["model"], again["status"]) == ("gpt-9", "incomplete")
    n_prompt = len("sBe brief.uHelloa")
    assert (first["usage"], again["usage"]) == (usage(n_prompt, 0, 2), usage(n_prompt, n_prompt - 1, 2))


def usage(n_prompt: int, cached: int, produced: int) -> dict[str, Any]:
    return {
        "input_tokens": n_prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": n_prompt - cached},
        "output_tokens": produced,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": n_prompt + produced,
    }


async def test_penalties_and_biases_change_the_output() -> None:
    """The scripted model gives the scripted byte a logit of 20, and all others 0."""
    async with served() as running:
        biased = await post(running, input="abcd", temperature=0, logit_bias={str(ord("b")): -100, str(ord("x")): 5})
        often = await post(running, input="a" * 12, temperature=0, presence_penalty=1, frequency_penalty=2)
        refused = await post(running, input="abcd", logit_bias={"261": 1})
    assert (biased.text, often.text) == ("axcd", "aaaaaaaaaa\0\1")
    message = "`logit_bias` names token 261; this model's tokens are 0 to 260."
    assert (refused.status, refused.json) == (400, error(message, "logit_bias"))


@pytest.mark.parametrize(
    ("path", "prompt", "limit", "count"),
    [
        ("/v1/responses", {"input": "ab"}, "max_output_tokens", "output_tokens"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "ab"}]},
            "max_tokens",
            "completion_tokens",
        ),
        ("/v1/completions", {"prompt": "ab"}, "max_tokens", "completion_tokens"),
    ],
)
async def test_ignore_eos_continues_to_the_limit_of_tokens(
    path: str, prompt: dict[str, Any], limit: str, count: str
) -> None:
    fields = prompt | {"temperature": 0, limit: 9}
    async with served() as running:
        ignoring = await exchange(running, "POST", path, encode(**fields, ignore_eos=True))
        usual = await exchange(running, "POST", path, encode(**fields))
    assert ignoring.json["usage"][count] == 9 > usual.json["usage"][count]


@pytest.mark.parametrize("stream", [True, False])
async def test_stop_string_ends_answer_and_generation(stream: bool) -> None:
    model = PacedModel(lambda message: b"one two three four", n_slots=1)
    async with served(model) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Count.", stop=["three", "zzz"], stream=stream)
        model.allow(len("one two three"))
        answer = await client.answer()
        assert answer.text == "one two "
        response = answer.events[-1]["response"] if stream else answer.json
        assert (response["status"], response["incomplete_details"]) == ("incomplete", None)
        assert response["responsed"] == {"stop": "three"}
        await running.app.wait_idle()
        model.go()
        await post(running, input="zzz")
    decodes = list(itertools.takewhile(lambda chunk: ord("z") not in chunk.tokens, model.decoded))
    assert len(decodes) in (13, 14)  # the next request may have begun


async def test_stream_with_split_characters_sends_whole_ones() -> None:
    text = "naïve 日本 👩‍🚀 é"
    async with served() as running:
        streamed = await post(running, input=text, stream=True)
    deltas = [event["delta"] for event in streamed.events if event["type"] == "response.output_text.delta"]
    assert deltas == list(text)


async def test_stream_frames_are_whole_and_first_two_are_one_chunk() -> None:
    async with served() as running:
        answer = await post(running, input="Hello", stream=True)
    frames = [[frame.event for frame in wire.parse_sse(chunk)] for chunk in answer.chunks]
    assert frames[0] == OPENING
    assert frames[-1] == [None]  # [DONE]
    assert list(itertools.chain(*frames)) == [*types(answer.events), None]


@pytest.mark.parametrize("stream", [True, False])
async def test_stream_opening_is_sent_before_prefill(stream: bool) -> None:
    model = PacedModel()
    async with served(model) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Hi", stream=stream)
        await model.wait_begun(1)
        if stream:
            await client.head()
            assert [frame.event for frame in wire.parse_sse(await client.chunk())] == OPENING
        assert model.decoded == []
        model.go()
        if stream:
            await client.frame("response.completed")
        else:
            assert (await client.answer()).text == "Hi"


async def test_requests_beyond_slots_wait_in_order() -> None:
    model = PacedModel(n_slots=1)
    async with served(model) as running:
        model.hold()
        clients = [await Client.to(running) for _ in "abcde"]
        for client, letter in zip(clients, "abcde", strict=True):
            await client.create(input=letter * 3, stream=True)
            await client.head()
            await trio.testing.wait_all_tasks_blocked()
        model.go()
        for client in clients:
            await client.frame("response.completed")
            async with client:
                pass
    letters = [bytes(token for token in chunk.tokens if token < 256)[-1:] for chunk in model.decoded]
    assert b"".join(letter for letter, _ in itertools.groupby(letters)) == b"abcde"


async def test_requests_within_slots_alternate() -> None:
    model = PacedModel(n_slots=2)
    async with served(model) as running, await Client.to(running) as one, await Client.to(running) as two:
        model.hold()
        await one.create(input="aaaa", stream=True)
        await model.wait_begun(1)
        await two.create(input="bbbb", stream=True)
        await trio.testing.wait_all_tasks_blocked()
        model.go()
        assert [(await one.answer()).text, (await two.answer()).text] == ["aaaa", "bbbb"]
    letters = b"".join(bytes(token for token in chunk.tokens if token < 256)[-1:] for chunk in model.decoded)
    assert letters == b"aababababb"  # a new request takes its turn after the running ones
