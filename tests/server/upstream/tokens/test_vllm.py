"""A front before a real vLLM server, in both forms: `VLLM_URL` names one that serves SmolLM2-135M-Instruct.

[Upstream servers](../../../../server/docs/upstream.md) has the commands that make its model and start it.
"""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support import wire
from tests.support.helpers import NAME, get, post
from tests.support.processes import Daemon, serving

VLLM = os.environ.get("VLLM_URL", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not VLLM, reason="VLLM_URL names no vLLM server")]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "people": {"type": "integer", "maximum": 9999}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {"type": "function", "name": "add_city", "parameters": SCHEMA, "strict": True}
FORMAT: dict[str, Any] = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}
REGEX = {"type": "grammar", "syntax": "regex", "definition": "[0-9]{3}-[a-f]{2}"}
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: DIGIT " + " DIGIT\nDIGIT: /[0-9]/'}
CALL: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 150}
GREEDY: dict[str, Any] = {"temperature": 0}
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module", params=["chat", "completions"])
def front(request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    flags = ["--upstream", VLLM, "--alias", NAME, "--upstream-api", request.param]
    if request.param == "completions":
        flags += ["--tokenizer", str(smollm2)]
    with serving(tmp_path_factory.mktemp("front"), *flags) as daemon:
        yield daemon


async def test_vllm_lacks_nothing_but_the_window_of_the_repeat_penalty(front: Daemon) -> None:
    meta = (await get(front, "/v1/models")).json["data"][0]["meta"]
    assert meta.get("lacking", []) in ([], ["repeat_last_n"])


@pytest.mark.parametrize("stream", [False, True])
async def test_text_has_usage_logprobs_and_limit(front: Daemon, stream: bool) -> None:
    wanted = {"top_logprobs": 2, "include": ["message.output_text.logprobs"], "max_output_tokens": 6, "stream": stream}
    answer = await post(front, input=QUESTION, **wanted, **GREEDY)
    response = answer.events[-1]["response"] if stream else answer.json
    wire.check_response(response)
    (part,) = response["output"][0]["content"]
    assert "".join(each["token"] for each in part["logprobs"]) == part["text"] != ""
    assert {len(each["top_logprobs"]) for each in part["logprobs"]} == {2}
    assert (response["usage"]["output_tokens"], response["incomplete_details"]["reason"]) == (6, "max_output_tokens")


async def test_stop_string_ends_the_answer(front: Daemon) -> None:
    response = (await post(front, input=QUESTION, stop=[" "], **GREEDY)).json
    assert (" " in response["output"][0]["content"][0]["text"], response["responsed"]["stop"]) == (False, " ")


async def test_seed_repeats_an_answer(front: Daemon) -> None:
    sampling = {"temperature": 1.3, "max_output_tokens": 10}
    one, two, other = [(await post(front, input="Tell a story.", seed=n, **sampling)).text for n in (7, 7, 8)]
    assert one == two != other


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 1.3])
async def test_required_call_and_format_match_their_schema(front: Daemon, temperature: float, stream: bool) -> None:
    for fields in (CALL | {"tools": [TOOL]}, {"text": FORMAT}):
        answer = await post(front, input="Add Paris.", temperature=temperature, seed=5, stream=stream, **fields)
        response = answer.events[-1]["response"] if stream else answer.json
        wire.check_response(response)
        assert response["status"] == "completed", response
        (item,) = response["output"]
        city = json.loads(item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])
        assert (city.keys(), city["city"] in ("Paris", "Rome"), type(city["people"])) == ({"city", "people"}, True, int)


async def test_custom_tools_follow_their_grammar(front: Daemon) -> None:
    tool: dict[str, Any] = {"type": "custom", "name": "code", "format": REGEX}
    (call,) = (await post(front, input="Give a code.", tools=[tool], **CALL, **GREEDY)).json["output"]
    assert (call["input"][:3].isdigit(), call["input"][3], len(call["input"])) == (True, "-", 6)
    answer = await post(front, input="Add 3 and 4.", tools=[tool | {"format": LARK}], **CALL, **GREEDY)
    if answer.status == 200:
        (call,) = answer.json["output"]
        assert (call["input"][0].isdigit(), call["input"][1:4], call["input"][4:].isdigit()) == (True, " + ", True)
    else:
        assert answer.json["error"]["param"] == "tools[0].format", "chat completions have no Lark"


async def test_prompt_that_is_too_long_is_refused(front: Daemon) -> None:
    answer = await post(front, input="word " * 40_000, max_output_tokens=8)
    assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")


def test_client_that_leaves_ends_the_request_at_vllm(front: Daemon) -> None:
    with (
        openai.OpenAI(base_url=front.url, api_key="-", max_retries=0) as client,
        client.responses.create(model=NAME, input="Write a long story.", stream=True, **GREEDY) as events,
    ):
        assert any(event.type == "response.output_text.delta" for event in events)
    deadline = time.monotonic() + 30
    while running():
        assert time.monotonic() < deadline, "vLLM still generates"
        time.sleep(0.1)


def test_conversation_finds_its_prefix_in_the_cache(front: Daemon) -> None:
    long = "Remember: " + " ".join(f"item {n} is number {n}." for n in range(60))
    with openai.OpenAI(base_url=front.url, api_key="-", max_retries=0) as client:
        limit: dict[str, Any] = {"model": NAME, "max_output_tokens": 8, **GREEDY}
        first = client.responses.create(input=long, **limit)
        second = client.responses.create(input="And?", previous_response_id=first.id, **limit)
    assert first.usage is not None
    assert second.usage is not None
    cached, tokens = second.usage.input_tokens_details.cached_tokens, first.usage.input_tokens
    assert 0.5 * tokens < cached, "vLLM counts whole blocks, of 128 tokens on a CPU (--enable-prompt-tokens-details)"


def test_answers_go_on_beside_each_other(front: Daemon) -> None:
    def ask(number: int) -> tuple[str, int]:
        with openai.OpenAI(base_url=front.url, api_key="-", max_retries=0) as client:
            limit: dict[str, Any] = {"model": NAME, "max_output_tokens": 16, "temperature": 0.7}
            response = client.responses.create(input=f"Tell me story {number}.", **limit)
        assert response.status in ("completed", "incomplete")
        assert response.usage is not None
        return response.output_text, response.usage.output_tokens

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, range(6)))
    assert all(text and 0 < tokens <= 16 for text, tokens in found)


async def test_greedy_tokens_are_those_of_the_model_here(front: Daemon, smollm2: Path, tmp_path: Path) -> None:
    if (await get(front, "/v1/models")).json["data"][0]["meta"]["n_vocab"] == 0:
        pytest.skip("chat completions have the template of vLLM")
    questions = ("Hi", "Name the largest planet.")
    fields: dict[str, Any] = {"max_output_tokens": 8, **GREEDY}
    likely: dict[str, Any] = {"top_logprobs": 3, "include": ["message.output_text.logprobs"], "max_output_tokens": 1}
    with serving(tmp_path, "--model", str(smollm2), "--alias", NAME) as embedded:
        answers = [[(await post(each, input=text, **fields)).text for each in (embedded, front)] for text in questions]
        first = [(await post(each, input=QUESTION, **likely, **GREEDY)).json for each in (embedded, front)]
    assert [found for _, found in answers] == [expected for expected, _ in answers]
    ours, theirs = [
        {top["token"]: top["logprob"] for top in each["output"][0]["content"][0]["logprobs"][0]["top_logprobs"]}
        for each in first
    ]
    assert theirs == {token: pytest.approx(logprob, abs=0.4) for token, logprob in ours.items()}, "weights are rounded"


def running() -> float:
    """Return the number of requests that vLLM generates."""
    with urllib.request.urlopen(f"{VLLM}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running"))
