"""A front before a real SGLang, in both forms: `SGLANG_URL` names it, with SmolLM2 as its model."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.upstream.test_llamacpp_servers import SCHEMA, check_format
from tests.support import wire
from tests.support.helpers import NAME, get, post
from tests.support.processes import Daemon, serving

URL = os.environ.get("SGLANG_URL", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not URL, reason="SGLANG_URL names no SGLang server"),
]
TOOL: dict[str, Any] = {"type": "function", "name": "add_city", "parameters": SCHEMA, "strict": True}
CUSTOM = {
    "lark": ('start: DIGIT " + " DIGIT\nDIGIT: /[0-9]/', "0 + 0"),
    "regex": ("[0-9]{4}-[0-9]{2}", "0000-00"),
}
SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 12}


@pytest.fixture(scope="module", params=["chat", "completions"])
def front(request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    flags = ["--upstream", URL, "--alias", NAME, "--upstream-api", request.param]
    flags += ["--tokenizer", str(smollm2)] if request.param == "completions" else []
    with serving(tmp_path_factory.mktemp("front"), *flags) as daemon:
        yield daemon


@pytest.fixture
def tokens(front: Daemon) -> Daemon:
    """Return the front in the token form."""
    if "is asked as SGLang" not in front.log.read_text():
        pytest.skip("SmolLM2's template has no tools")
    return front


async def test_stream_and_whole_answer_are_equal(front: Daemon) -> None:
    streamed = await post(front, input="Say hello.", stream=True, **SHORT)
    wire.check_stream(streamed.events)
    whole = (await post(front, input="Say hello.", **SHORT)).json
    wire.check_response(whole)
    last = streamed.events[-1]["response"]
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert (last["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (33, last["usage"]["output_tokens"])


async def test_logprobs_and_stop_strings(front: Daemon) -> None:
    wanted: dict[str, Any] = {"temperature": 0, "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    response = (
        await post(front, input="Count: one two three four", stop=["three"], max_output_tokens=20, **wanted)
    ).json
    (part,) = response["output"][0]["content"]
    assert "three" not in part["text"]
    assert all(len(each["top_logprobs"]) == 2 for each in part["logprobs"])
    assert "".join(each["token"] for each in part["logprobs"]).startswith(part["text"])


async def test_settings_are_accepted(front: Daemon) -> None:
    fields: dict[str, Any] = {"seed": 5, "top_p": 0, "top_k": 20, "min_p": 0.05, "presence_penalty": 0.5}
    response = (await post(front, input="Hi", temperature=0.8, max_output_tokens=5, **fields)).json
    assert response["status"] in ("completed", "incomplete")


def test_format_is_enforced(front: Daemon) -> None:
    check_format(front.url)


async def test_prompt_that_is_too_long_is_refused(front: Daemon) -> None:
    context = (await get(front, "/v1/models")).json["data"][0]["meta"]["n_ctx"]
    refused = await post(front, input="word " * context, max_output_tokens=5)
    assert (refused.status, refused.json["error"]["code"]) == (400, "context_length_exceeded")


def test_requests_at_once_are_answered(front: Daemon) -> None:
    with openai.OpenAI(base_url=front.url, api_key="-", max_retries=0) as client, ThreadPoolExecutor(6) as pool:
        asked = [
            pool.submit(client.responses.create, model=NAME, input=f"Number {n}?", max_output_tokens=8)
            for n in range(6)
        ]
        assert {each.result().status for each in asked} <= {"completed", "incomplete"}


@pytest.mark.parametrize("temperature", [0, 1.3])
async def test_required_call_matches_its_schema(tokens: Daemon, temperature: float) -> None:
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "seed": 5}
    asked = "Call add_city for Paris with 5 people."
    response = (await post(tokens, input=asked, temperature=temperature, max_output_tokens=200, **fields)).json
    (call,) = response["output"]
    assert (response["status"], call["name"]) == ("completed", "add_city")
    assert [type(value) for value in json.loads(call["arguments"]).values()] == [str, int]


@pytest.mark.parametrize("syntax", CUSTOM)
async def test_grammar_of_a_custom_tool_is_enforced(tokens: Daemon, syntax: str) -> None:
    definition, form = CUSTOM[syntax]
    tool = {"type": "custom", "name": "note", "format": {"type": "grammar", "syntax": syntax, "definition": definition}}
    fields: dict[str, Any] = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    (call,) = (await post(tokens, input="Note it.", temperature=0, **fields)).json["output"]
    assert "".join("0" if each.isdigit() else each for each in call["input"]) == form
