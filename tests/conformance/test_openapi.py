"""The description of the API fits OpenAPI, the routes, and what the server really sends."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from server.api import openapi
from server.openapi import document
from tests.server.api.test_reasoning import THINKS, thinker
from tests.server.upstream.fronts import Served
from tests.support.helpers import encode, exchange, get, post, served
from tests.support.websockets import SocketClient

ROOT = Path(__file__).parents[2]


@cache
def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document(openapi.OPERATIONS, "1"))
    return found


def check(body: object, name: str) -> None:
    """Check a body against a component."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": described()["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)


@pytest.mark.slow
def test_document_is_valid_openapi() -> None:
    from openapi_spec_validator import validate  # takes a tenth of a second, which the fast tests don't need

    validate(described())


@pytest.mark.slow
def test_document_has_every_route_and_no_other() -> None:
    table = (ROOT / "server" / "api" / "routes.py").read_text()
    routes = {path.replace("...}", "}") for path in re.findall(r'^ +"(/[^"]*)": \{', table, re.MULTILINE)}
    assert set(described()["paths"]) == routes


@pytest.mark.slow
async def test_described_methods_are_those_of_the_server() -> None:
    async with served() as running:
        for path, methods in described()["paths"].items():
            answer = await exchange(running, "OPTIONS", path.replace("{", "").replace("}", ""))
            allowed = {name.lower() for name in answer.headers["allow"].split(", ")} - {"head", "options"}
            assert allowed == set(methods), path


def test_events_are_a_union_that_their_type_discriminates() -> None:
    union = described()["components"]["schemas"]["ResponseStreamEvent"]
    mapping = union["discriminator"]["mapping"]
    assert union["discriminator"]["propertyName"] == "type"
    assert sorted(mapping.values()) == sorted(ref["$ref"] for ref in union["anyOf"])
    assert {"error", "response.created", "response.completed", "response.reasoning_summary_part.done"} <= set(mapping)
    assert {"response.reasoning_text.delta", "response.reasoning.delta"} <= set(mapping), (
        "names of either specification"
    )


@pytest.mark.slow
async def test_server_sends_its_description() -> None:
    async with served() as running:
        answer = await get(running, "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["paths"] == described()["paths"]


@pytest.mark.slow
async def test_answers_and_events_fit_their_descriptions(served: Served, tmp_path: Path) -> None:
    asked = {"input": "Is it?", "reasoning": {"summary": "auto"}, "metadata": {"a": "b"}}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    async with served(thinker(), template=THINKS, state=tmp_path) as running:
        streamed = await post(running, **asked, tools=[tool], tool_choice="none", stream=True)
        whole = await post(running, **asked)
        messages = encode(messages=[{"role": "user", "content": "A"}])
        chat = await exchange(running, "POST", "/v1/chat/completions", messages)
        text = await exchange(running, "POST", "/v1/completions", encode(prompt="A"))
        wrong = await post(running, input="Is it?", temperature=9)
        models = await get(running, "/v1/models")
        items = await get(running, f"/v1/responses/{whole.json['id']}/input_items")
        health = await get(running, "/health")
        status = await get(running, "/status")
    for event in streamed.events:
        check(event, "ResponseStreamEvent")
    for body, name in (
        (whole.json, "Response"),
        (chat.json, "ChatCompletion"),
        (text.json, "Failed" if running.sends_chat else "TextCompletion"),
        (wrong.json, "Failed"),
        (models.json, "ModelList"),
        (items.json, "ItemList"),
        (health.json, "Health"),
        (status.json, "Status"),
        (asked | {"tools": [tool]}, "Request"),
    ):
        check(body, name)


@pytest.mark.slow
async def test_messages_of_a_websocket_fit_their_descriptions() -> None:
    described_ = described()["paths"]["/v1/responses"]["get"]["x-websocket"]
    client_name, server_name = (described_[side]["$ref"].rpartition("/")[2] for side in ("client", "server"))
    create = {"type": "response.create", "input": "Is it?", "stream_id": "a", "store": False}
    steer = {"type": "response.steer", "previous_response_id": "resp_0", "input": "No."}
    async with (
        served(thinker(), template=THINKS) as running,
        await SocketClient.to(running, "Content-Type: application/json") as client,
    ):
        await client.json(create)
        events = await client.until("response.completed")
        for wrong in (create | {"generate": "no"}, steer):
            await client.json(wrong)
            events.append(await client.event())
    for message in (create, steer):
        check(message, client_name)
    for event in events:
        check(event, server_name)
    assert {"response.steer.failed", "error", "response.reasoning.delta"} <= {event["type"] for event in events}
    for wrong in (create | {"generate": "no"}, create | {"type": "response.new"}, {"type": "response.steer"}):
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, client_name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": 7},
        {"input": [{"role": 1}]},
        {"input": "A", "temperature": 3},
        {"input": "A", "tools": [{"name": "f"}]},
        {"input": "A", "reasoning": {"effort": "very"}},
    ],
)
def test_wrong_request_does_not_fit_its_description(wrong: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(wrong, "Request")
