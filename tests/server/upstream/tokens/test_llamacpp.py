"""A front that sends tokens to two llama.cpp servers: tools, grammars and counts that chat completions do not give.

SmolLM2's own template has no tools.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tokenizer import tokenizer_files
from tests.server.upstream.test_llamacpp_servers import SCHEMA, check_format, llamacpp
from tests.support import wire
from tests.support.helpers import NAME, encode, exchange, get, post
from tests.support.processes import Daemon, serving

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

TOOL: dict[str, Any] = {"type": "function", "name": "add_city", "parameters": SCHEMA, "strict": True}
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: DIGIT " + " DIGIT\nDIGIT: /[0-9]/'}


@pytest.fixture(scope="module", params=["gguf", "json"])
def front(request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("front")
        tokenizer = smollm2 if request.param == "gguf" else tokenizer_files.from_gguf(smollm2, folder)
        urls = [stack.enter_context(llamacpp(smollm2, folder / f"llama{n}.log"))[0] for n in range(2)]
        flags = [flag for url in urls for flag in ("--upstream", url)] + ["--alias", NAME]
        flags += ["--upstream-api", "completions", "--tokenizer", str(tokenizer)]
        yield stack.enter_context(serving(folder, *flags))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 1.3])
async def test_required_call_matches_its_schema(front: Daemon, temperature: float, stream: bool) -> None:
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "seed": 5}
    answer = await post(front, input="Add Paris.", temperature=temperature, stream=stream, **fields)
    response = answer.events[-1]["response"] if stream else answer.json
    wire.check_response(response)
    (call,) = response["output"]
    arguments = json.loads(call["arguments"])
    assert (response["status"], call["name"], arguments.keys()) == ("completed", "add_city", {"city", "people"})
    assert [type(value) for value in arguments.values()] == [str, int]


async def test_lark_grammar_is_enforced(front: Daemon) -> None:
    tool = {"type": "custom", "name": "sum", "format": LARK}
    answer = await post(front, input="Add 3 and 4.", tools=[tool], tool_choice="required", parallel_tool_calls=False)
    (call,) = answer.json["output"]
    assert (call["input"][0].isdigit(), call["input"][1:4], call["input"][4:].isdigit()) == (True, " + ", True)


def test_format_is_enforced(front: Daemon) -> None:
    check_format(front.url)


async def test_counts_are_exact_and_a_conversation_returns_to_its_upstream(front: Daemon) -> None:
    first = (await post(front, input="My name is Bob.", temperature=0, max_output_tokens=12)).json
    counted = await exchange(front, "POST", "/v1/responses/input_tokens", encode(input="My name is Bob."))
    assert counted.json["input_tokens"] == first["usage"]["input_tokens"]
    again = (await post(front, input="And?", previous_response_id=first["id"], max_output_tokens=12)).json
    assert again["usage"]["input_tokens_details"]["cached_tokens"] >= first["usage"]["input_tokens"]


async def test_stop_string_and_logprobs_are_those_of_a_model_here(front: Daemon) -> None:
    wanted: dict[str, Any] = {"temperature": 0, "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    response = (await post(front, input="Count to nine.", stop=[" "], max_output_tokens=40, **wanted)).json
    (part,) = response["output"][0]["content"]
    assert (response["status"], response["responsed"]["stop"], " " in part["text"]) == ("incomplete", " ", False)
    assert "".join(each["token"] for each in part["logprobs"]) == part["text"]
    assert all(len(each["top_logprobs"]) == 2 for each in part["logprobs"])


async def test_text_is_continued_and_seeds_repeat(front: Daemon) -> None:
    bodies = [encode(model=NAME, prompt="Once upon a", max_tokens=12, temperature=1.2, seed=n) for n in (3, 3, 4)]
    texts = [(await exchange(front, "POST", "/v1/completions", body)).json["choices"][0]["text"] for body in bodies]
    assert texts[0] == texts[1] != texts[2]


async def test_upstreams_lack_nothing(front: Daemon) -> None:
    assert "lacking" not in (await get(front, "/v1/models")).json["data"][0]["meta"]
    assert front.log.read_text().count("has all fields that were probed") == 2
