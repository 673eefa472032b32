"""Input that steers a response in progress: `response.steer` and its three answers."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai.types.responses import ResponseSteerAcceptedEvent, ResponseSteerFailedEvent, ResponseSteerPendingEvent

from engine.backends.scripted import Reply
from tests.server.api.tools.test_tools import HERMES, call
from tests.support.helpers import PacedModel, served, text, types
from tests.support.websockets import SocketClient

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


def reply(message: bytes) -> bytes:
    """Reply to `Go.` with many words, and to other texts with these."""
    return b"word " * 500 if message.endswith(b"Go.") else message


def caller(message: bytes) -> bytes:
    """Call `look`, and reply with its result once there is one.

    The arguments are long: a slow machine evaluates the prompt in more steps, and some of the call must be left.
    """
    return b"Done: " + message if b"Go." not in message else call("look", json.dumps({"at": "x" * 500})).encode()


@asynccontextmanager
async def started(
    reply: Reply = reply, decodes: int = 0, until: str = "response.in_progress", **request: Any
) -> AsyncIterator[tuple[PacedModel, SocketClient, str]]:
    """A response that has begun, and waits: its model, its client and its id."""
    model = PacedModel(reply, n_ctx=1 << 14)
    async with served(model, template=HERMES) as running, await SocketClient.to(running) as client:
        model.hold()
        await client.create(input="Go.", **request)
        model.allow(decodes)
        events = await client.until(until)
        yield model, client, events[0]["response"]["id"]


def steer(previous: str, input_: Any = "Stop.", **more: Any) -> dict[str, Any]:
    return {"type": "response.steer", "previous_response_id": previous, "input": input_, **more}


async def accepted(client: SocketClient, previous: str, input_: Any = "Stop.") -> dict[str, Any]:
    await client.json(steer(previous, input_))
    event = (await client.until("response.steer.accepted"))[-1]
    ResponseSteerAcceptedEvent.model_validate(event, strict=True)
    assert event["steer"]["previous_response_id"] == previous
    return event


async def failed(client: SocketClient) -> dict[str, Any]:
    event = (await client.until("response.steer.failed"))[-1]
    ResponseSteerFailedEvent.model_validate(event, strict=True)
    return event


@pytest.mark.parametrize("lane", [None, "main"])
async def test_steered_response_ends_and_its_successor_begins(lane: str | None) -> None:
    named: dict[str, Any] = {} if lane is None else {"stream_id": lane}
    async with started(
        decodes=5, until="response.output_text.delta", store=False, instructions="Be brief.", temperature=0, **named
    ) as (model, client, first):
        event = await accepted(client, first)
        assert event.get("stream_id") == lane
        model.allow(10)
        ended = (await client.until("response.incomplete"))[-1]
        model.go()
        successor = await client.stream()
    response = successor[-1]["response"]
    assert (ended.get("stream_id"), ended["response"]["id"]) == (lane, first)
    assert (ended["response"]["status"], ended["response"]["incomplete_details"]) == (
        "incomplete",
        {"reason": "steered"},
    )
    cut = text(ended["response"])
    assert ("word " * 500).startswith(cut)
    assert 0 < len(cut) <= len("word " * 15)
    assert (text(response), response["previous_response_id"]) == ("Stop.", first)
    assert (response["instructions"], response["temperature"]) == ("Be brief.", 0)


async def test_inputs_before_the_end_reach_one_successor_in_order() -> None:
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Two."}]}
    async with started() as (model, client, first):
        numbers = [(await accepted(client, first, each))["sequence_number"] for each in ("One.", [message])]
        model.go()
        await client.until("response.incomplete")
        response = (await client.stream())[-1]["response"]
        items = await client.response(input="Again.", previous_response_id=response["id"])
    assert numbers == [0, 1]
    assert text(response) == "One.Two." or text(response).endswith("Two.")
    assert text(items).endswith("Again.")


async def test_successor_comes_before_a_queued_request() -> None:
    async with started() as (model, client, first):
        await client.create(input="Later.")
        await accepted(client, first)
        model.go()
        await client.until("response.incomplete")
        assert [text((await client.stream())[-1]["response"]) for _ in range(2)] == ["Stop.", "Later."]


@pytest.mark.slow
async def test_steered_call_is_pending_until_its_result_comes() -> None:
    async with started(caller, 200, "response.function_call_arguments.delta", tools=[TOOL], store=False) as (
        model,
        client,
        first,
    ):
        event = await accepted(client, first, "And hurry.")
        model.go()
        ended = (await client.until("response.completed"))[-1]["response"]
        (made,) = [item for item in ended["output"] if item["type"] == "function_call"]
        pending = await client.event()
        ResponseSteerPendingEvent.model_validate(pending, strict=True)
        assert pending["steer"] == event["steer"]
        (stub,) = pending["required_input"]
        assert stub == {"type": "function_call_output", "call_id": made["call_id"], "name": "look"}
        result = await client.response(
            input=[stub | {"output": "a cat"}], previous_response_id=first, tools=[TOOL], store=False
        )
    assert "hurry" in text(result) or "cat" in text(result)


@pytest.mark.slow
async def test_lane_that_goes_on_elsewhere_returns_the_input() -> None:
    async with started(caller, 200, "response.function_call_arguments.delta", tools=[TOOL]) as (model, client, first):
        event = await accepted(client, first)
        model.go()
        await client.until("response.steer.pending")
        await client.create(input="Something else.")
        returned = await failed(client)
        assert returned["error"]["code"] == "response_not_active"
        assert returned["steer"] == {"input": "Stop.", "previous_response_id": first, "id": event["steer"]["id"]}
        assert (await client.stream())[-1]["response"]["status"] == "completed"


@pytest.mark.slow
async def test_failed_request_with_the_results_returns_the_input() -> None:
    async with started(caller, 200, "response.function_call_arguments.delta", tools=[TOOL]) as (model, client, first):
        await accepted(client, first)
        model.go()
        await client.until("response.steer.pending")
        await client.create(input=[], previous_response_id=first, model="nope")
        assert types(await client.until("error")) == ["error"]
        assert (await failed(client))["error"]["code"] == "successor_creation_failed"


@pytest.mark.slow
async def test_successor_that_cannot_be_created_returns_the_input() -> None:
    async with started() as (model, client, first):
        await accepted(client, first, "x" * 50_000)
        model.go()
        await client.until("response.incomplete")
        returned = await failed(client)
        assert returned["error"]["code"] == "successor_creation_failed"
        assert text(await client.response(input="Hi.")) == "Hi."


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,"}
INVALID: dict[str, Any] = {
    "nothing": [],
    "null": None,
    "a number": 7,
    "another role": [{"role": "system", "content": "Hi."}],
    "a result": [{"type": "function_call_output", "call_id": "x", "output": ""}],
    "an unknown field": [{"role": "user", "content": "Hi.", "name": "Ann"}],
    "an unknown part": [{"role": "user", "content": [{"type": "output_text", "text": "Hi."}]}],
}


@pytest.mark.parametrize("case", INVALID)
async def test_invalid_input_is_returned(case: str) -> None:
    async with started() as (_, client, first):
        await client.json(steer(first, INVALID[case]))
        event = (await client.until("response.steer.failed"))[-1]
        assert (event["error"]["code"], event["steer"]) == (
            "invalid_input",
            {"input": INVALID[case], "previous_response_id": first},
        )


async def test_further_field_is_refused() -> None:
    async with started() as (_, client, first):
        await client.json(steer(first, stream_id="main"))
        assert (await failed(client))["error"]["code"] == "invalid_input"


@pytest.mark.slow
async def test_response_that_is_not_in_progress_cannot_be_steered() -> None:
    async with started(lambda message: b"word " * 20) as (model, client, first):
        await client.json(steer("resp_none"))
        assert (await failed(client))["error"]["code"] == "response_not_found"
        await client.create(input="Hi.")
        model.go()
        await client.until("response.completed")
        ended = (await client.stream())[-1]["response"]
        await client.json(steer(first))
        assert (await failed(client))["error"]["code"] == "response_not_found"
        await client.json(steer(ended["id"]))
        assert (await failed(client))["error"]["code"] == "response_already_completed"


TRIGGER = [{"role": "user", "content": "Go."}, {"type": "compaction_trigger"}]


@pytest.mark.slow
@pytest.mark.parametrize("request_", [{"input": "Go.", "generate": False}, {"input": TRIGGER}])
async def test_response_without_answer_cannot_be_steered(request_: dict[str, Any]) -> None:
    model = PacedModel(reply, n_ctx=1 << 14)
    async with served(model) as running, await SocketClient.to(running) as client:
        model.hold()
        await client.create(**request_)
        events = await client.until("response.in_progress")
        await client.json(steer(events[0]["response"]["id"]))
        assert (await failed(client))["error"]["code"] == "steering_not_supported"
        model.go()
        assert (await client.until("response.completed"))[-1]["response"]["status"] == "completed"


async def test_waiting_inputs_are_limited() -> None:
    async with started() as (_, client, first):
        for index in range(16):
            assert (await accepted(client, first))["sequence_number"] == index
        await client.json(steer(first))
        assert (await failed(client))["error"]["code"] == "too_many_pending_steers"


@pytest.mark.slow
async def test_waiting_inputs_have_a_megabyte_together() -> None:
    async with started() as (_, client, first):
        for _ in range(2):
            await accepted(client, first, "x" * 500_000)
        await client.json(steer(first, "x" * 100_000))
        assert (await failed(client))["error"]["code"] == "too_many_pending_steers"
