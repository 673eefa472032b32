"""Cases of Open Responses and of openai-python with a real model: two llama.cpp servers behind two fronts on one
database, in both forms. Tools of SmolLM2, whose chat template has none, are in `tokens/test_llamacpp.py`."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from tests.server.store.cluster import Cluster
from tests.server.upstream.test_llamacpp_servers import llamacpp
from tests.support import wire
from tests.support.helpers import NAME, encode, exchange, get, post
from tests.support.processes import Daemon, serving
from tests.support.websockets import SocketClient

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

ENDED = ("completed", "incomplete")
SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 16}
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


@pytest.fixture(scope="module", params=["chat", "completions"])
def fronts(
    request: pytest.FixtureRequest, smollm2: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Daemon]]:
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(f"front{n}") for n in range(2)]
        urls = [stack.enter_context(llamacpp(smollm2, folder / "llama.log"))[0] for folder in folders]
        flags = [flag for url in urls for flag in ("--upstream", url)] + [
            "--alias",
            NAME,
            "--store",
            cluster.create().url,
        ]
        if request.param == "completions":
            flags += ["--upstream-api", "completions", "--tokenizer", str(smollm2)]
        yield [stack.enter_context(serving(folder, *flags)) for folder in folders]


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


async def test_websocket_continues_a_response_of_another_front(fronts: list[Daemon]) -> None:
    here, there = fronts
    async with await SocketClient.to(here) as client:
        first = await client.response(input="Remember the code word: cobalt.", **SHORT)
    async with await SocketClient.to(there) as client:
        second = await client.response(input="And?", previous_response_id=first["id"], **SHORT)
        third = await client.response(store=False, input="And?", previous_response_id=second["id"], **SHORT)
    assert {each["status"] for each in (first, second, third)} <= set(ENDED)
    assert first["usage"]["total_tokens"] < second["usage"]["input_tokens"] < third["usage"]["input_tokens"]
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 20, "both fronts choose the same upstream"


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
