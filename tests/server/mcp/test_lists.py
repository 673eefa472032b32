"""Lists of MCP servers' tools: the first stage of a response, streamed and stored, asked for once."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import Struct

from engine.backends.scripted import ScriptedModel
from server.protocol import sse
from server.stream import INTERRUPTED
from tests.server.api.tools.test_tools import HERMES, evaluated
from tests.server.mcp.hostile_server import TOOL, encode, hostile, send
from tests.server.mcp.test_approvals import approved, kinds, output
from tests.server.mcp.test_approved_calls import asking, ended, started
from tests.server.mcp.test_mcp import calculator, tool
from tests.support import wire
from tests.support.helpers import Client, exchange, get, post, prompt_text, served, text, types
from tests.support.helpers import encode as body_of
from tests.support.websockets import SocketClient

STOPPED = "The server stopped while this response was in progress; send the request again."
INTERRUPTED_LIST = "The list was interrupted: the next request asks for it again."


class ListingServer(Struct):
    """MCP server that answers a list when the test lets it."""

    url: str = ""
    asked: int = 0
    may_answer: trio.Event = trio.Event()
    left: trio.Event = trio.Event()
    """Set once its client has left before the answer."""
    begun: trio.Event = trio.Event()


@asynccontextmanager
async def listing() -> AsyncIterator[ListingServer]:
    server = ListingServer(may_answer=trio.Event(), left=trio.Event(), begun=trio.Event())

    async def attack(stream: trio.SocketStream, id_: Any) -> None:
        server.asked += 1
        server.begun.set()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await stream.receive_some()
                server.left.set()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await server.may_answer.wait()
            nursery.cancel_scope.cancel()
        if not server.left.is_set():
            await send(stream, encode(id_, result={"tools": [TOOL]}))

    async with hostile("tools/list", attack) as url:
        server.url = url
        yield server


def talker() -> ScriptedModel:
    return ScriptedModel(lambda prompt: b"Ok.")


LISTED = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.mcp_list_tools.in_progress",
    "response.mcp_list_tools.completed",
    "response.output_item.done",
]
FAILED = [*LISTED[:4], "response.mcp_list_tools.failed", "response.output_item.done", "error", "response.failed"]


async def test_list_is_the_first_stage_of_its_response(mcp_url: str) -> None:
    async with served(talker(), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(mcp_url)], stream=True)
    assert types(answer.events)[: len(LISTED)] == LISTED
    added, done = answer.events[2]["item"], answer.events[5]["item"]
    assert added == done | {"tools": []}
    assert (done["error"], len(done["tools"])) == (None, 6)
    assert answer.events[-1]["response"]["output"][0] == done


@pytest.mark.slow
async def test_response_begins_before_the_server_answers() -> None:
    async with (
        listing() as server,
        served(talker(), template=HERMES, allow_mcp=(server.url,)) as running,
        await Client.to(running) as client,
    ):
        await client.create(input="Go.", tools=[tool(server.url)], stream=True)
        await client.head()
        await client.frame("response.mcp_list_tools.in_progress")
        status = (await get(running, "/status")).json
        server.may_answer.set()
        rest = await client.rest_of_stream()
    assert [each["state"] for each in status["streams"]] == ["tool"]
    assert (status["running"], status["waiting"]) == (0, 0)
    assert b"event: response.mcp_list_tools.completed" in rest
    assert rest.endswith(sse.DONE)


@pytest.mark.slow
async def test_stream_shows_signs_of_life_during_a_list() -> None:
    async with (
        listing() as server,
        served(talker(), template=HERMES, allow_mcp=(server.url,), heartbeat_seconds=0.05) as running,
        await Client.to(running) as client,
    ):
        await client.create(input="Go.", tools=[tool(server.url)], stream=True)
        await client.read_past(b"event: response.mcp_list_tools.in_progress")
        await client.read_past(sse.PING)
        server.may_answer.set()
        await client.read_past(b"event: response.completed")


DOWN = "Error retrieving tool list from MCP server: 'calc'. The MCP server answered with status 503."


async def refusing(stream: trio.SocketStream, id_: Any) -> None:
    await send(stream, b"", "503 Service Unavailable")


@pytest.mark.slow
async def test_failed_list_ends_its_response_with_all_events(tmp_path: Path) -> None:
    async with (
        hostile("tools/list", refusing) as url,
        served(talker(), template=HERMES, allow_mcp=(url,), state=tmp_path) as running,
    ):
        answer = await post(running, input="Go.", tools=[tool(url)], stream=True)
        stored = (await get(running, f"/v1/responses/{answer.events[0]['response']['id']}")).json
    *_, done, error, last = answer.events
    response = last["response"]
    assert types(answer.events) == FAILED
    item = {"type": "mcp_list_tools", "server_label": "calc", "tools": [], "error": DOWN}
    assert done["item"] == item | {"id": done["item"]["id"]}
    assert error["error"] == {
        "type": "external_connector_error", "code": "server_error", "message": DOWN, "param": "tools[0]",
    }  # fmt: skip
    assert (response["error"], response["responsed"]) == (
        {"code": "server_error", "message": DOWN}, {"fault": "connector_failed"},
    )  # fmt: skip
    assert (response["output"], response["usage"]) == ([done["item"]], None)
    assert stored == response


@pytest.mark.slow
async def test_failed_list_without_a_stream_is_a_424() -> None:
    """Status and object are OpenAI's."""
    async with hostile("tools/list", refusing) as url, served(talker(), allow_mcp=(url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(url)])
    assert (answer.status, answer.json) == (
        424,
        {"error": {"message": DOWN, "type": "external_connector_error", "param": "tools[0]", "code": "http_error"}},
    )


@pytest.mark.slow
async def test_failed_list_of_a_background_response_is_its_error(tmp_path: Path) -> None:
    async with (
        hostile("tools/list", refusing) as url,
        served(talker(), template=HERMES, allow_mcp=(url,), state=tmp_path) as running,
    ):
        begun = (await post(running, input="Go.", tools=[tool(url)], background=True)).json
        response = await ended(running, begun["id"])
    assert (response["status"], response["error"]["message"], kinds(response)) == ("failed", DOWN, ["mcp_list_tools"])


async def test_second_list_fails_behind_the_first_one(mcp_url: str) -> None:
    async with (
        hostile("tools/list", refusing) as url,
        served(talker(), template=HERMES, allow_mcp=(mcp_url, url)) as running,
    ):
        tools = [tool(mcp_url), tool(url, server_label="down")]
        answer = await post(running, input="Go.", tools=tools, stream=True)
    first, second = answer.events[-1]["response"]["output"]
    assert types(answer.events) == [*LISTED, *FAILED[2:]]
    assert (first["server_label"], first["error"], second["server_label"]) == ("calc", None, "down")
    assert (second["error"], answer.events[-2]["param"]) == (DOWN.replace("calc", "down"), "tools[1]")


async def test_conversation_goes_on_behind_a_failed_list(mcp_url: str, tmp_path: Path) -> None:
    """The failed list is no list: the next request asks again."""
    async with (
        hostile("tools/list", refusing) as url,
        served(talker(), template=HERMES, allow_mcp=(mcp_url, url), state=tmp_path) as running,
    ):
        failed = (await post(running, input="Go.", tools=[tool(url)], stream=True)).events[-1]["response"]
        again = await post(running, input="Now?", tools=[tool(mcp_url)], previous_response_id=failed["id"])
        prompt = prompt_text(running.model)
    assert kinds(again.json) == ["mcp_list_tools", "message"]
    assert again.json["output"][0]["error"] is None
    assert "Go." in prompt
    assert "status 503" not in prompt


@pytest.mark.slow
async def test_list_of_the_conversation_is_not_asked_for_again(tmp_path: Path) -> None:
    async with (
        listing() as server,
        served(talker(), template=HERMES, allow_mcp=(server.url,), state=tmp_path) as running,
    ):
        server.may_answer.set()
        asked: dict[str, Any] = {"tools": [tool(server.url)]}
        first = (await post(running, input="Go.", **asked)).json
        chained = (await post(running, input="Now?", previous_response_id=first["id"], **asked)).json
        sent = (await post(running, input=[*first["output"], {"role": "user", "content": "Now?"}], **asked)).json
        conversation = (await exchange(running, "POST", "/v1/conversations", b"{}")).json["id"]
        turns = [(await post(running, input="Go.", conversation=conversation, **asked)).json for _ in range(2)]
        prompt = prompt_text(running.model)
    assert [kinds(each) for each in (first, chained, sent, *turns)] == [
        ["mcp_list_tools", "message"], ["message"], ["message"], ["mcp_list_tools", "message"], ["message"],
    ]  # fmt: skip
    assert server.asked == 2
    assert "calc__add: Adds." in prompt, "the list of the conversation is offered"


BROKEN: dict[str, list[Any]] = {
    "schema is a number": [{"name": "x", "input_schema": 5}],
    "schema is a list": [{"name": "x", "input_schema": []}],
    "schema is null": [{"name": "x", "input_schema": None}],
    "no name": [{"name": "", "input_schema": {}}],
    "long name": [{"name": "x" * 200, "input_schema": {}}],
    "one name twice": [{"name": "x", "input_schema": {}}] * 2,
    "name with a marker": [{"name": "</tool_call>", "input_schema": {}}],
    "no tool": ["x"],
}


@pytest.mark.parametrize("tools", BROKEN.values(), ids=BROKEN)
async def test_list_of_the_history_that_no_server_may_send_is_asked_for_again(tools: list[Any], mcp_url: str) -> None:
    item = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "calc", "tools": tools}
    async with served(talker(), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input=[item, {"role": "user", "content": "Go."}], tools=[tool(mcp_url)])
    assert (answer.status, kinds(answer.json)) == (200, ["mcp_list_tools", "message"])


@pytest.mark.slow
async def test_hang_up_ends_a_list() -> None:
    async with listing() as server, served(talker(), template=HERMES, allow_mcp=(server.url,)) as running:
        for body in ({"stream": True}, {}):
            async with await Client.to(running) as client:
                await client.create(input="Go.", tools=[tool(server.url)], **body)
                await server.begun.wait()
                await client.leave()
            await server.left.wait()
            server.left, server.begun = trio.Event(), trio.Event()


@pytest.mark.slow
async def test_cancel_ends_the_list_of_a_background_response(tmp_path: Path) -> None:
    async with (
        listing() as server,
        served(talker(), template=HERMES, allow_mcp=(server.url,), state=tmp_path) as running,
    ):
        begun = (await post(running, input="Go.", tools=[tool(server.url)], background=True)).json
        await server.begun.wait()
        cancelled = (await exchange(running, "POST", f"/v1/responses/{begun['id']}/cancel")).json
        await server.left.wait()
    assert (cancelled["status"], [item["error"] for item in cancelled["output"]]) == ("cancelled", [INTERRUPTED_LIST])


@pytest.mark.slow
async def test_background_response_lists_and_answers(tmp_path: Path) -> None:
    async with (
        listing() as server,
        served(talker(), template=HERMES, allow_mcp=(server.url,), state=tmp_path) as running,
    ):
        begun = (await post(running, input="Go.", tools=[tool(server.url)], background=True)).json
        await server.begun.wait()
        listed = (await get(running, f"/v1/responses/{begun['id']}")).json
        server.may_answer.set()
        response = await ended(running, begun["id"])
    assert (begun["output"], listed["status"], listed["output"]) == ([], "in_progress", [])
    assert (response["status"], kinds(response)) == ("completed", ["mcp_list_tools", "message"])


@pytest.mark.slow
async def test_stream_resumes_in_the_middle_of_a_list(tmp_path: Path) -> None:
    async with (
        listing() as server,
        served(
            talker(), template=HERMES, allow_mcp=(server.url,), state=tmp_path, resume_window_seconds=60.0
        ) as running,
    ):
        async with await Client.to(running) as client:
            await client.create(input="Go.", tools=[tool(server.url)], stream=True)
            id_, _ = await client.created()
            await server.begun.wait()
        async with await Client.to(running) as client:
            await client.request("GET", f"/v1/responses/{id_}?stream=true&starting_after=2")
            await client.head()
            await client.frame("response.mcp_list_tools.in_progress")
            server.may_answer.set()
            rest = await client.rest_of_stream()
        whole = await get(running, f"/v1/responses/{id_}?stream=true")
    assert rest in whole.body
    assert types(whole.events)[: len(LISTED)] == LISTED
    assert whole.events[-1]["response"]["status"] == "completed"


@pytest.mark.slow
async def test_list_over_a_websocket_streams_in_its_response() -> None:
    async with (
        listing() as server,
        served(talker(), template=HERMES, allow_mcp=(server.url,)) as running,
        await SocketClient.to(running) as client,
    ):
        await client.create(input="Go.", tools=[tool(server.url)])
        begun = await client.until("response.mcp_list_tools.in_progress")
        server.may_answer.set()
        events = [*begun, *await client.until("response.completed")]
        again = await client.response(
            input="Now?", tools=[tool(server.url)], previous_response_id=events[-1]["response"]["id"]
        )
    wire.check_stream(events)
    assert types(events)[: len(LISTED)] == LISTED
    assert (kinds(again), server.asked) == (["message"], 1)


@pytest.mark.slow
async def test_failed_list_over_a_websocket_leaves_the_connection() -> None:
    async with (
        hostile("tools/list", refusing) as url,
        served(talker(), template=HERMES, allow_mcp=(url,)) as running,
        await SocketClient.to(running) as client,
    ):
        await client.create(input="Go.", tools=[tool(url)])
        events = await client.stream()
        after = await client.response(input="Go on.")
    assert types(events) == FAILED
    assert (after["status"], text(after)) == ("completed", "Ok.")


@pytest.mark.slow
async def test_hang_up_of_a_websocket_ends_a_list() -> None:
    async with listing() as server, served(talker(), template=HERMES, allow_mcp=(server.url,)) as running:
        async with await SocketClient.to(running) as client:
            await client.create(input="Go.", tools=[tool(server.url)], store=False)
            await server.begun.wait()
        await server.left.wait()


@pytest.mark.slow
async def test_crash_during_a_list_is_told_and_asked_for_again(tmp_path: Path) -> None:
    """The store as it is during the list is that of a server whose power is cut then."""
    copy = tmp_path / "copy"
    async with listing() as server:
        asked: dict[str, Any] = {"tools": [tool(server.url)]}
        async with (
            served(talker(), template=HERMES, allow_mcp=(server.url,), state=tmp_path) as running,
            await Client.to(running) as client,
        ):
            await client.create(input="Go.", stream=True, **asked)
            id_, _ = await client.created()
            await server.begun.wait()
            shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])
            server.may_answer.set()
        async with served(talker(), template=HERMES, allow_mcp=(server.url,), state=copy) as running:
            cut = await get(running, f"/v1/responses/{id_}?stream=true")
            after = await get(running, f"/v1/responses/{id_}?stream=true&starting_after=3")
            onward = (await post(running, input="Go on.", previous_response_id=id_, **asked)).json
    response = cut.events[-1]["response"]
    assert types(cut.events) == FAILED
    assert [(item["type"], item["error"]) for item in response["output"]] == [("mcp_list_tools", STOPPED)]
    assert after.body in cut.body
    assert (onward["status"], kinds(onward)) == ("completed", ["mcp_list_tools", "message"])


async def test_list_comes_before_an_approved_call(mcp_url: str) -> None:
    """A client may send the conversation without the list."""
    async with served(asking("add", a=2, b=3), template=HERMES, allow_mcp=(mcp_url,)) as running:
        body = await approved(running, mcp_url)
        body["input"] = [item for item in body["input"] if item.get("type") != "mcp_list_tools"]
        answer = await post(running, **body, stream=True)
    response = answer.events[-1]["response"]
    assert kinds(response) == ["mcp_list_tools", "mcp_call", "message"]
    assert response["output"][1]["output"] == "5"


@pytest.mark.slow
async def test_approved_call_is_not_executed_behind_a_failed_list(tmp_path: Path) -> None:
    """Its approval stays good for one call."""
    async with listing() as server, hostile("tools/list", refusing) as url:
        server.may_answer.set()
        async with served(asking("add"), template=HERMES, allow_mcp=(server.url, url), state=tmp_path) as running:
            _, body = await started(running, server.url)
            tools = [*body["tools"], tool(url, server_label="down")]
            refused = await post(running, **body | {"tools": tools})
            executed = await post(running, **body)
    assert (refused.status, kinds(executed.json), output(executed)) == (424, ["mcp_call", "message"], "ok")
    assert executed.json["output"][0]["error"] is None
    assert INTERRUPTED.message not in executed.body.decode()


CHOICES: dict[str, tuple[Any, int]] = {
    "required": ("required", 200),
    "server": ({"type": "mcp", "server_label": "calc", "name": None}, 200),
    "tool": ({"type": "mcp", "server_label": "calc", "name": "add"}, 200),
    "allowed": ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp", "server_label": "calc"}]}, 200),
    "none": ("none", 200),
    "unknown tool": ({"type": "mcp", "server_label": "calc", "name": "nothing"}, 400),
    "unknown server": ({"type": "mcp", "server_label": "other"}, 400),
}


@pytest.mark.parametrize(("choice", "status"), CHOICES.values(), ids=CHOICES)
async def test_choice_of_a_tool_waits_for_its_list(choice: Any, status: int, mcp_url: str) -> None:
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="2+3?", tools=[tool(mcp_url)], tool_choice=choice)
    assert answer.status == status
    if status == 200:
        assert answer.json["tool_choice"] == choice
        assert ("mcp_call" in kinds(answer.json)) == (choice != "none")
    else:
        assert answer.json["error"]["param"] == "tool_choice"


async def test_choice_of_a_tool_that_the_list_lacks_fails_behind_the_list(mcp_url: str) -> None:
    choice = {"type": "mcp", "server_label": "calc", "name": "nothing"}
    async with served(talker(), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(mcp_url)], tool_choice=choice, stream=True)
    assert types(answer.events) == [*LISTED, "error", "response.failed"]
    assert answer.events[-2]["param"] == "tool_choice"
    assert answer.events[-1]["response"]["error"]["code"] == "invalid_prompt"


@pytest.mark.slow
async def test_parts_of_listed_schemas_that_are_not_enforced_are_named() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True, "items": {}}}}

    async def attack(stream: trio.SocketStream, id_: Any) -> None:
        await send(stream, encode(id_, result={"tools": [TOOL | {"inputSchema": schema}]}))

    async with hostile("tools/list", attack) as url, served(talker(), template=HERMES, allow_mcp=(url,)) as running:
        first = (await post(running, input="Go.", tools=[tool(url)])).json
        history = [*first["output"], {"role": "user", "content": "Go."}]
        second = (await post(running, input=history, tools=[tool(url)])).json
    assert first["responsed"]["unenforced"]
    assert first["responsed"] == second["responsed"]


async def test_prompt_behind_a_list_is_compared_with_earlier_ones(mcp_url: str) -> None:
    options = {"prompt_cache_options": {"mode": "implicit"}}
    async with served(talker(), template=HERMES, allow_mcp=(mcp_url,)) as running:
        asked: dict[str, Any] = {"tools": [tool(mcp_url)]} | options
        first = (await post(running, input="Go.", **asked)).json
        second = (await post(running, input="Go.", **asked)).json
    assert "responsed" not in first
    cache = second["responsed"]["cache"]
    assert (cache["response_id"], cache["missed_tokens"]) == (first["id"], 0)
    assert cache["reusable_tokens"] == second["usage"]["input_tokens"]


async def test_prompt_of_a_listed_request_is_that_of_one_with_the_list(mcp_url: str) -> None:
    async with served(talker(), template=HERMES, allow_mcp=(mcp_url,)) as running:
        first = (await post(running, input="Go.", tools=[tool(mcp_url)])).json
        once = evaluated(running)
        running.model.decoded.clear()
        history = [first["output"][0], {"role": "user", "content": "Go."}]
        second = (await post(running, input=history, tools=[tool(mcp_url)])).json
    assert first["usage"]["input_tokens"] == second["usage"]["input_tokens"]
    assert second["usage"]["input_tokens_details"]["cached_tokens"] == first["usage"]["input_tokens"] - 1
    assert once.count(b"calc__add") == 1
    assert b"calc__*" not in once


async def test_counted_tokens_are_those_of_the_answer(mcp_url: str) -> None:
    async with served(talker(), template=HERMES, allow_mcp=(mcp_url,)) as running:
        asked: dict[str, Any] = {"input": "Go.", "tools": [tool(mcp_url)]}
        counted = await exchange(running, "POST", "/v1/responses/input_tokens", body_of(**asked))
        answer = await post(running, **asked)
    assert counted.json["input_tokens"] == answer.json["usage"]["input_tokens"]


async def test_compaction_asks_for_no_list(mcp_url: str) -> None:
    async with listing() as server, served(talker(), template=HERMES, allow_mcp=(server.url,)) as running:
        items = [{"role": "user", "content": "Go."}, {"type": "compaction_trigger"}]
        answer = await post(running, input=items, tools=[tool(server.url)], tool_choice="required")
    assert (kinds(answer.json), server.asked) == (["compaction"], 0)


async def test_warm_up_has_the_tools_of_the_list(mcp_url: str) -> None:
    async with served(talker(), template=HERMES, allow_mcp=(mcp_url,)) as running:
        asked: dict[str, Any] = {"input": "Go.", "tools": [tool(mcp_url)]}
        warm = (await post(running, **asked, prompt_cache_options={"prewarm": True})).json
        answer = (await post(running, **asked)).json
    assert kinds(warm) == ["mcp_list_tools"]
    assert answer["usage"]["input_tokens_details"]["cached_tokens"] >= answer["usage"]["input_tokens"] - 16


@pytest.mark.slow
async def test_time_of_a_list_is_no_time_of_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with (
        listing() as server,
        served(talker(), template=HERMES, allow_mcp=(server.url,), answer_timeout_seconds=1) as running,
        await Client.to(running) as client,
    ):
        await client.create(input="Go.", tools=[tool(server.url)], stream=True)
        await server.begun.wait()
        await trio.sleep(1.2)
        server.may_answer.set()
        await client.read_past(b"event: response.completed")
        await client.read_past(sse.DONE)
    (line,) = [message for message in caplog.messages if ", tools " in message]
    assert "completed" in line


async def test_list_beside_a_full_engine_begins_at_once(mcp_url: str) -> None:
    """The response is queued for its slot behind the list only."""
    model = ScriptedModel(lambda prompt: b"Ok. " * 150, n_slots=1)
    async with (
        served(model, template=HERMES, allow_mcp=(mcp_url,)) as running,
        await Client.to(running) as busy,
    ):
        await busy.create(input="Hi", stream=True)
        await busy.created()
        answer = await post(running, input="Go.", tools=[tool(mcp_url)], stream=True, max_output_tokens=16)
        await busy.rest_of_stream()
    begin = types(answer.events)
    assert [each for each in begin if each != "response.queued"][: len(LISTED)] == LISTED
    assert json.loads(answer.body.split(b"data: ")[1].split(b"\n")[0])["type"] == "response.created"
