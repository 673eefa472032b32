"""Cases of Open Responses and of openai-python with a real model: two llama.cpp servers behind two fronts on one
database, in both forms; and tools, grammars and counts, which only fronts that send tokens give: SmolLM2's own template
has no tools."""

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from tests.engine.tokenizer import tokenizer_files
from tests.server.store.cluster import Cluster
from tests.server.upstream.test_llamacpp_servers import SCHEMA, check_format, llamacpp
from tests.support import wire
from tests.support.helpers import NAME, encode, exchange, get, post
from tests.support.processes import Daemon, serving
from tests.support.websockets import SocketClient

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

ENDED = ("completed", "incomplete")
SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 8}
PDF = base64.b64encode(b"%PDF-1.1\nstream\n(Title: Fixture) Tj\nendstream\n%%EOF").decode()
FILE = {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}
CASES: dict[str, Any] = {
    "basic": "Say hello in exactly 3 words.",
    "system prompt": [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Say hello."}],
    "multi-turn": [
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": "Hello Alice!"},
        {"role": "user", "content": "What is my name?"},
    ],
    "phase": [
        {"role": "assistant", "phase": "commentary", "content": "I should answer with the number."},
        {"role": "assistant", "phase": "final_answer", "content": "The number is four."},
        {"role": "user", "content": "Repeat the number."},
    ],
    "file": [{"role": "user", "content": [{"type": "input_text", "text": "Name the title."}, FILE]}],
}


TOOL: dict[str, Any] = {"type": "function", "name": "add_city", "parameters": SCHEMA, "strict": True}
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: DIGIT " + " DIGIT\nDIGIT: /[0-9]/'}


@pytest.fixture(scope="module")
def upstreams(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Flags of two upstreams."""
    with ExitStack() as stack:
        logs = [tmp_path_factory.mktemp("llamacpp") / "log" for _ in range(2)]
        urls = [stack.enter_context(llamacpp(smollm2, log))[0] for log in logs]
        yield [flag for url in urls for flag in ("--upstream", url)]


@pytest.fixture(scope="module", params=["chat", "completions"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fronts(
    api: str, upstreams: list[str], smollm2: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Daemon]]:
    """Run two fronts. Fronts of tokens read the vocabulary from a GGUF file, and from a tokenizer.json."""
    flags = [*upstreams, "--alias", NAME, "--store", cluster.create().url, "--upstream-api", api]
    folders = [tmp_path_factory.mktemp(f"front{n}") for n in range(2)]
    more: list[list[str]] = [[], []]
    if api == "completions":
        tokenizers = smollm2, tokenizer_files.from_gguf(smollm2, folders[1])
        more = [["--tokenizer", str(each)] for each in tokenizers]
    with ExitStack() as stack:
        yield [stack.enter_context(serving(folder, *flags, *own)) for folder, own in zip(folders, more, strict=True)]


sends_tokens = pytest.mark.parametrize("api", ["completions"], indirect=True, scope="module")


@pytest.mark.parametrize("name", CASES)
async def test_case_is_answered_and_seen_at_the_other_front(fronts: list[Daemon], name: str) -> None:
    here, there = fronts
    answer = await post(here, input=CASES[name], **SHORT)
    streamed = await post(there, input=CASES[name], stream=True, **SHORT)
    response = answer.json
    wire.check_response(response)
    assert (answer.status, response["status"] in ENDED, bool(answer.text)) == (200, True, True)
    assert streamed.events[-1]["response"]["status"] in ENDED
    assert (await get(there, f"/v1/responses/{response['id']}")).json == response


async def test_conversation_is_compacted_at_another_front(fronts: list[Daemon]) -> None:
    here, there = fronts
    first = (await post(here, input="We launch on Tuesday.", **SHORT)).json
    body = encode(previous_response_id=first["id"])
    compacted = await exchange(there, "POST", "/v1/responses/compact", body)
    wire.check_against("CompactResource", compacted.json, "the compacted conversation")
    goal = {"role": "user", "content": "Go on."}
    assert (await post(here, input=[*compacted.json["output"], goal], **SHORT)).json["status"] in ENDED


async def test_websocket_continues_a_response_of_another_front(fronts: list[Daemon], api: str) -> None:
    here, there = fronts
    async with await SocketClient.to(here) as client:
        first = await client.response(input=f"Remember the code word: {api}.", **SHORT)
    async with await SocketClient.to(there) as client:
        second = await client.response(input="And?", previous_response_id=first["id"], **SHORT)
        third = await client.response(store=False, input="And?", previous_response_id=second["id"], **SHORT)
    assert {each["status"] for each in (first, second, third)} <= set(ENDED)
    assert first["usage"]["total_tokens"] < second["usage"]["input_tokens"] < third["usage"]["input_tokens"]
    cached = second["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["input_tokens"], "both fronts choose the same upstream"


class City(pydantic.BaseModel):
    name: str
    people: int


def test_every_call_of_openai_python_may_reach_another_front(fronts: list[Daemon]) -> None:
    clients = cycle(
        openai.OpenAI(base_url=each.url, api_key="-", max_retries=0, _strict_response_validation=True)
        for each in fronts
    )
    long: Any = {"model": NAME, "input": "Count from 1 to 1000: 1, 2, 3, 4, 5,", "temperature": 0}
    conversation = next(clients).conversations.create(metadata={"a": "b"}).id
    first = next(clients).responses.create(model=NAME, input="Hello", conversation=conversation, **SHORT)
    with next(clients).responses.stream(model=NAME, input="And?", conversation=conversation, **SHORT) as stream:
        second = [event.type for event in stream][-1]
    assert {f"response.{first.status}", second} <= {f"response.{status}" for status in ENDED}
    items = next(clients).conversations.items.list(conversation, order="asc")
    assert [item.type for item in items] == ["message"] * 4

    parsed = next(clients).responses.parse(
        model=NAME, input="Name a city.", text_format=City, max_output_tokens=200, temperature=0
    )
    assert isinstance(parsed.output_parsed, City)

    background = next(clients).responses.create(background=True, **long)
    assert next(clients).responses.cancel(background.id).status == "cancelled"
    assert next(clients).responses.retrieve(background.id).status == "cancelled"

    next(clients).responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        next(clients).responses.retrieve(first.id)


@sends_tokens
@pytest.mark.parametrize(("number", "temperature", "stream"), [(0, 0, True), (1, 1.3, False)])
async def test_required_call_matches_its_schema(
    fronts: list[Daemon], number: int, temperature: float, stream: bool
) -> None:
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "seed": 5}
    answer = await post(fronts[number], input="Add Paris.", temperature=temperature, stream=stream, **fields)
    response = answer.events[-1]["response"] if stream else answer.json
    wire.check_response(response)
    (call,) = response["output"]
    arguments = json.loads(call["arguments"])
    assert (response["status"], call["name"], arguments.keys()) == ("completed", "add_city", {"city", "people"})
    assert [type(value) for value in arguments.values()] == [str, int]


@sends_tokens
async def test_lark_grammar_is_enforced(fronts: list[Daemon]) -> None:
    tool = {"type": "custom", "name": "sum", "format": LARK}
    for front in fronts:
        answer = await post(
            front, input="Add 3 and 4.", tools=[tool], tool_choice="required", parallel_tool_calls=False
        )
        (call,) = answer.json["output"]
        assert (call["input"][0].isdigit(), call["input"][1:4], call["input"][4:].isdigit()) == (True, " + ", True)


@sends_tokens
def test_format_is_enforced(fronts: list[Daemon]) -> None:
    check_format(fronts[1].url)


@sends_tokens
async def test_counts_are_exact_and_a_conversation_returns_to_its_upstream(fronts: list[Daemon]) -> None:
    here, there = fronts
    first = (await post(here, input="My name is Bob.", temperature=0, max_output_tokens=12)).json
    for front in fronts:
        counted = await exchange(front, "POST", "/v1/responses/input_tokens", encode(input="My name is Bob."))
        assert counted.json["input_tokens"] == first["usage"]["input_tokens"]
    again = (await post(there, input="And?", previous_response_id=first["id"], max_output_tokens=12)).json
    assert again["usage"]["input_tokens_details"]["cached_tokens"] >= first["usage"]["input_tokens"]


@sends_tokens
async def test_stop_string_and_logprobs_are_those_of_a_model_here(fronts: list[Daemon]) -> None:
    wanted: dict[str, Any] = {"temperature": 0, "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    for front in fronts:
        response = (await post(front, input="Count to nine.", stop=[" "], max_output_tokens=40, **wanted)).json
        (part,) = response["output"][0]["content"]
        assert (response["status"], response["responsed"]["stop"], " " in part["text"]) == ("incomplete", " ", False)
        assert "".join(each["token"] for each in part["logprobs"]) == part["text"]
        assert all(len(each["top_logprobs"]) == 2 for each in part["logprobs"])


@sends_tokens
async def test_text_is_continued_and_seeds_repeat(fronts: list[Daemon]) -> None:
    bodies = [encode(model=NAME, prompt="Once upon a", max_tokens=12, temperature=1.2, seed=n) for n in (3, 3, 4)]
    answers = [await exchange(fronts[0], "POST", "/v1/completions", body) for body in bodies]
    texts = [answer.json["choices"][0]["text"] for answer in answers]
    assert texts[0] == texts[1] != texts[2]


@sends_tokens
async def test_upstreams_lack_nothing(fronts: list[Daemon]) -> None:
    for front in fronts:
        assert "lacking" not in (await get(front, "/v1/models")).json["data"][0]["meta"]
        assert front.log.read_text().count("has all fields that were probed") == 2
