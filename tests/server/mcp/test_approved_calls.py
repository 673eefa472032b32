"""Approved calls of MCP tools: executed inside their response, shown and stored at once, and each of them once."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from server.mcp.approved_calls import LOST
from server.protocol import sse
from server.stream import INTERRUPTED
from tests.server.api.compaction.test_compaction import TALK, managed
from tests.server.api.tools.test_tools import HERMES
from tests.server.mcp.test_approvals import COUNT, approved, count, counting, kinds, output
from tests.server.mcp.test_mcp import tool
from tests.support.helpers import Answer, Client, Running, get, post, prompt_text, served, text, types
from tests.support.websockets import SocketClient

INTERRUPTED_ERROR = {"type": "http_error", "code": INTERRUPTED.code, "message": INTERRUPTED.message}


def asking(name: str, **arguments: Any) -> ScriptedModel:
    """Return a model that calls a tool for "Go.", and ends once the prompt is longer than the question."""
    call = f"<tool_call>\n{json.dumps({'name': f'calc__{name}', 'arguments': arguments})}\n</tool_call>".encode()
    return ScriptedModel(lambda prompt: call if prompt.endswith(b"Go.") else b"Done.")


async def started(running: Running, mcp_url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a response that asks for an approval, and the body of the request that continues it."""
    asked = tool(mcp_url, require_approval="always")
    first = (await post(running, input="Go.", tools=[asked])).json
    approval = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
    return first, {"input": [approval], "tools": [asked], "previous_response_id": first["id"]}


async def test_approved_call_streams_in_its_response(mcp_url: str) -> None:
    model = asking("sleep", seconds=0.2)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), heartbeat_seconds=0.02) as running:
        answer = await post(running, **await approved(running, mcp_url, stream=False) | {"stream": True})
    assert [kind for kind in types(answer.events) if "delta" not in kind] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    _, called = answer.body.split(b"event: response.mcp_call_arguments.done")
    assert sse.PING in called.split(b"event: response.mcp_call.completed")[0]


async def test_progress_does_not_silence_the_heartbeats_of_a_call(mcp_url: str) -> None:
    """Its events end with the first item."""
    model = asking("sleep", seconds=0.2)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), heartbeat_seconds=0.02) as running:
        body = await approved(running, mcp_url)
        answer = await post(running, **body, stream=True, return_progress=True)
    _, called = answer.body.split(b"event: response.mcp_call_arguments.done")
    assert sse.PING in called.split(b"event: response.mcp_call.completed")[0]


@pytest.mark.parametrize("store", [True, False])
async def test_approval_that_is_sent_again_executes_nothing(store: bool, mcp_url: str, tmp_path: Path) -> None:
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        body = await approved(running, mcp_url, store=store)
        first, second = await post(running, **body), await post(running, **body)
        after = await count(running, mcp_url)
    assert output(first) == output(second) == str(after - 1)
    assert kinds(first.json) == kinds(second.json) == ["mcp_call", "message"]


async def test_same_approval_at_once_is_executed_once(mcp_url: str) -> None:
    answers: list[Answer] = []

    async with served(asking("slow_count", seconds=0.3), template=HERMES, allow_mcp=(mcp_url,)) as running:
        body = await approved(running, mcp_url)

        async def send() -> None:
            answers.append(await post(running, **body))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send)
    assert len({output(answer) for answer in answers}) == 1


async def test_edited_arguments_are_another_call(mcp_url: str) -> None:
    """A client that has the history may change it. One approval is no key to the output of another call."""
    async with served(asking("add", a=2, b=3), template=HERMES, allow_mcp=(mcp_url,)) as running:
        body = await approved(running, mcp_url)
        first = await post(running, **body)
        body["input"][-2]["arguments"] = '{"a": 20, "b": 3}'
        second = await post(running, **body)
    assert (output(first), output(second)) == ("5", "23")


async def test_foreign_ids_of_approvals_are_no_memory(mcp_url: str) -> None:
    """Histories of other servers may repeat an id for another user's call."""
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,)) as running:
        body = await approved(running, mcp_url)
        for item in body["input"][-2:]:
            item["id" if item["type"] == "mcp_approval_request" else "approval_request_id"] = "mcpr_1"
        first, second = await post(running, **body), await post(running, **body)
    assert int(output(second)) == int(output(first)) + 1


async def test_two_approvals_are_executed_in_order(mcp_url: str) -> None:
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,)) as running:
        one, other = await approved(running, mcp_url), await approved(running, mcp_url)
        answer = await post(running, input=[*one["input"], *other["input"]], tools=one["tools"])
        prompt = prompt_text(running.model)
    first, second, _ = answer.json["output"]
    assert kinds(answer.json) == ["mcp_call", "mcp_call", "message"]
    assert int(second["output"]) == int(first["output"]) + 1
    assert prompt.count('"name": "calc__count"') == 2


async def test_output_beyond_the_context_loses_no_answer(mcp_url: str) -> None:
    """The call is executed before its output is known to be too long: a 400 would hide it."""
    async with served(asking("shout", size=50_000), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, **await approved(running, mcp_url))
    call, message = answer.json["output"]
    assert (call["status"], call["error"]["code"]) == ("failed", 413)
    assert (answer.status, message["content"][0]["text"]) == (200, "Done.")


async def test_call_counts_for_the_limit_of_calls(mcp_url: str) -> None:
    """No tool is offered behind the last call."""
    async with served(ScriptedModel(lambda prompt: COUNT), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, **await approved(running, mcp_url), max_tool_calls=1)
    assert kinds(answer.json) == ["mcp_call", "message"]


async def test_required_call_is_the_approved_one(mcp_url: str) -> None:
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, **await approved(running, mcp_url, tool_choice="required"))
    assert kinds(answer.json) == ["mcp_call", "message"]


@pytest.mark.slow
async def test_compaction_follows_the_call(mcp_url: str) -> None:
    """The threshold counts the prompt with the output."""

    def reply(prompt: bytes) -> bytes:
        return b"They counted." if prompt.endswith(b"before or after it.") else counting(prompt)

    async with served(ScriptedModel(reply, n_ctx=1 << 14), template=HERMES, allow_mcp=(mcp_url,)) as running:
        body = await approved(running, mcp_url)
        answer = await post(running, input=[*TALK, *body["input"]], tools=body["tools"], stream=True, **managed(1))
    response = answer.events[-1]["response"]
    assert kinds(response)[:2] == ["mcp_call", "compaction"]
    assert response["status"] == "completed"


async def test_crash_after_an_approved_call_repeats_nothing(mcp_url: str, tmp_path: Path) -> None:
    """The store as it is while the model reads the output is that of a server whose power is cut then."""
    copy = tmp_path / "copy"

    def reply(prompt: bytes) -> bytes:
        if prompt[-1:].isdigit() and not copy.exists():
            shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])
        return counting(prompt)

    async with served(ScriptedModel(reply), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        _, body = await started(running, mcp_url)
        whole = (await post(running, **body)).json
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,), state=copy) as running:
        cut = (await get(running, f"/v1/responses/{whole['id']}")).json
        again = await post(running, **body)
        after = await count(running, mcp_url)
        onward = await post(running, input="Go on.", tools=body["tools"], previous_response_id=whole["id"])
    assert (cut["status"], kinds(cut)) == ("failed", ["mcp_call"])
    assert cut["output"][0]["output"] == output(again) == whole["output"][0]["output"] == str(after - 1)
    assert onward.status == 200


async def test_call_of_an_unstored_response_is_not_repeated_after_a_restart(mcp_url: str, tmp_path: Path) -> None:
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        body = await approved(running, mcp_url, store=False)
        waiting = await approved(running, mcp_url, store=False)
        first = await post(running, **body)
    async with served(asking("count"), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        again = await post(running, **body)
        other = await post(running, **waiting)
    assert kinds(again.json) == ["mcp_call", "message"]
    assert (again.json["output"][0]["status"], again.json["output"][0]["error"]) == (
        "failed",
        {"type": "http_error", "code": LOST.code, "message": LOST.message},
    )
    assert output(other) == str(int(output(first)) + 1)


async def ended(running: Running, response_id: str) -> dict[str, Any]:
    """Return a response once it has ended."""
    stream = await get(running, f"/v1/responses/{response_id}?stream=true")
    response: dict[str, Any] = stream.events[-1]["response"]
    return response


async def interrupted(running: Running, response_id: str, body: dict[str, Any]) -> None:
    """Check that a call was interrupted, and that its approval is good for no second attempt."""
    cut = (await get(running, f"/v1/responses/{response_id}")).json
    assert (cut["output"][0]["status"], cut["output"][0]["error"]) == ("incomplete", INTERRUPTED_ERROR)
    again = (await post(running, **body)).json
    assert kinds(again) == ["mcp_call", "message"]
    assert (again["output"][0]["status"], again["output"][0]["error"]) == ("failed", INTERRUPTED_ERROR)
    assert text(again) == "Done."
    onward = await post(running, input="Go on.", tools=body["tools"], previous_response_id=response_id)
    assert (onward.status, INTERRUPTED.message in prompt_text(running.model)) == (200, True)


async def calling(client: Client, body: dict[str, Any]) -> str:
    """Create a response whose approved call has begun; return its id."""
    await client.create(**body, stream=True)
    id_, _ = await client.created()
    await client.read_past(b"event: response.mcp_call_arguments.done")
    return id_


async def test_crash_during_an_approved_call_is_told(mcp_url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    model = asking("slow_count", seconds=1)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        _, body = await started(running, mcp_url)
        async with await Client.to(running) as client:
            id_ = await calling(client, body)
            await trio.sleep(0.1)  # until the call is on its way
            shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), state=copy) as running:
        await interrupted(running, id_, body)


async def test_crash_during_a_call_without_approval_is_told(mcp_url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    model = asking("slow_count", seconds=1)
    body: dict[str, Any] = {"input": "Go.", "tools": [tool(mcp_url)]}
    async with (
        served(model, template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running,
        await Client.to(running) as client,
    ):
        id_ = await calling(client, body)
        await trio.sleep(0.1)  # until the call is on its way
        shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), state=copy) as running:
        cut = (await get(running, f"/v1/responses/{id_}")).json
        onward = await post(running, input="Go on.", tools=body["tools"], previous_response_id=id_)
        prompt = prompt_text(running.model)
    assert kinds(cut) == ["mcp_list_tools", "mcp_call"]
    assert (cut["output"][1]["status"], cut["output"][1]["error"]) == ("incomplete", INTERRUPTED_ERROR)
    assert (onward.status, INTERRUPTED.message in prompt) == (200, True)


async def test_status_shows_a_call_that_is_executed_without_a_slot(mcp_url: str) -> None:
    async with (
        served(asking("slow_count", seconds=1), template=HERMES, allow_mcp=(mcp_url,)) as running,
        await Client.to(running) as client,
    ):
        await client.create(input="Go.", tools=[tool(mcp_url)], stream=True)
        await client.read_past(b"event: response.mcp_call_arguments.done")
        status = (await get(running, "/status")).json
    assert [each["state"] for each in status["streams"]] == ["tool"]
    assert (status["running"], status["waiting"]) == (0, 0)


async def test_hang_up_during_an_approved_call_is_told(mcp_url: str, tmp_path: Path) -> None:
    model = asking("slow_count", seconds=1)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        _, body = await started(running, mcp_url)
        async with await Client.to(running) as client:
            id_ = await calling(client, body)
        await ended(running, id_)
        await interrupted(running, id_, body)


async def test_approved_call_over_a_websocket_streams_in_its_response(mcp_url: str) -> None:
    async with (
        served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,)) as running,
        await SocketClient.to(running) as client,
    ):
        body = await approved(running, mcp_url)
        await client.create(**body)
        events = await client.stream()
        again = await client.response(**body)
    kinds_ = [kind for kind in types(events) if "mcp" in kind and "delta" not in kind]
    assert kinds_ == [
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
    ]
    assert again["output"][0]["output"] == events[-1]["response"]["output"][0]["output"]


async def test_background_response_executes_an_approved_call(mcp_url: str, tmp_path: Path) -> None:
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        _, body = await started(running, mcp_url)
        begun = (await post(running, **body, background=True)).json
        response = await ended(running, begun["id"])
    assert kinds(response) == ["mcp_call", "message"]


@pytest.mark.slow
async def test_time_of_a_call_is_no_time_of_the_answer(mcp_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = asking("sleep", seconds=2.5)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), answer_timeout_seconds=2) as running:
        approval = await post(running, **await approved(running, mcp_url))
        direct = await post(running, input="Go.", tools=[tool(mcp_url)])
    assert (approval.json["status"], direct.json["status"]) == ("completed", "completed")
    times = [re.search(r", tools (\d+) ms", message) for message in caplog.messages]
    assert len([found for found in times if found is not None and int(found[1]) >= 2500]) == 2
