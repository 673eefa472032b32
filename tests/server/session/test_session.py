"""Requests of one connection: continuation, lanes, errors, hang-ups, shutdown, and openai-python's `connect()`."""

import json
import logging
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from openai.lib.responses_websocket import ResponsesWebSocketLimits, ResponsesWebSocketSession
from openai.types.responses.responses_server_event import ResponseWsError
from wsproto.events import CloseConnection, TextMessage

from engine.backends.scripted import ScriptedModel
from server.session import SessionTurn
from server.websocket import WebSocketLimits
from tests.server.api.test_reasoning import THINKS
from tests.support import wire
from tests.support.helpers import (
    NAME,
    PATIENCE,
    PacedModel,
    Running,
    api_keys,
    exchange,
    get,
    official_client,
    post,
    served,
    text,
    types,
)
from tests.support.websockets import SocketClient, frame

INVALID = "invalid_request_error"
ANSWER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@asynccontextmanager
async def connected(model: ScriptedModel | None = None, **settings: Any) -> AsyncIterator[tuple[Running, SocketClient]]:
    async with served(model, **settings) as running, await SocketClient.to(running) as client:
        yield running, client


def endless(message: bytes) -> bytes:
    """Reply to `Go.` with more words than a test reads."""
    return b"word " * 800 if message.endswith(b"Go.") else message


async def refused(client: SocketClient, event: Any) -> tuple[int, str, str | None]:
    """The status, code and param of the error about an event."""
    await client.json(event)
    error = await client.event()
    ResponseWsError.model_validate(error, strict=True)
    wire.check_against("WebSocketErrorEvent", error, "the error")
    return error["status"], error["error"]["code"], error["error"]["param"]


async def test_events_are_those_of_a_stream_over_http() -> None:
    """Both transports send the same JSON, but for ids and times."""
    async with connected() as (running, client):
        await client.create(input="Hi.", store=False)
        events = await client.stream()
        over_http = (await post(running, input="Hi.", store=False, stream=True)).events
    assert _anonymous(events) == _anonymous(over_http)


def _anonymous(events: Sequence[dict[str, Any]]) -> str:
    masked = re.sub(r"_[0-9a-f]{32}", "_ID", json.dumps(events))
    return re.sub(r'"(created_at|completed_at|cached_tokens|cache_write_tokens)": \d+', r'"\1": 0', masked)


@pytest.mark.parametrize(
    ("setting", "headers", "infix"),
    [
        ("auto", [], "reasoning_text"),
        ("auto", ["Content-Type: application/json"], "reasoning"),
        ("openai", ["Content-Type: application/json"], "reasoning_text"),
        ("open-responses", [], "reasoning"),
        ("openai", ["OpenResponses-Version: latest"], "reasoning"),
    ],
)
async def test_reasoning_events_have_the_chosen_names(setting: str, headers: list[str], infix: str) -> None:
    model = ScriptedModel(lambda message: b"<think>\nHm.\n</think>\n\nYes.")
    async with (
        served(model, template=THINKS, reasoning_events=setting) as running,
        await SocketClient.to(running, *headers) as client,
    ):
        await client.create(input="Is it?", store=False)
        events = await client.until("response.completed")
    assert {f"response.{infix}.delta", f"response.{infix}.done"} <= set(types(events))
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "message"]


@pytest.mark.slow
async def test_conversation_without_store_continues_by_its_latest_response() -> None:
    async with connected() as (_, client):
        first = await client.response(input="One.", store=False)
        second = await client.response(input="Two.", store=False, previous_response_id=first["id"])
        third = await client.response(input="Three.", store=False, previous_response_id=second["id"])
        assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
        assert third["usage"]["input_tokens_details"]["cached_tokens"] >= second["usage"]["input_tokens"]
        old = {"type": "response.create", "input": "?", "previous_response_id": first["id"]}
        assert await refused(client, old) == (400, "previous_response_not_found", "previous_response_id")


@pytest.mark.slow
async def test_stored_response_continues_over_either_transport(tmp_path: Path) -> None:
    async with connected(state=tmp_path) as (running, client):
        over_http = (await post(running, input="One.")).json
        second = await client.response(input="Two.", previous_response_id=over_http["id"])
        assert (await get(running, f"/v1/responses/{second['id']}")).json == second
        third = (await post(running, input="Three.", previous_response_id=second["id"])).json
        async with await SocketClient.to(running) as other:
            fourth = await other.response(input="Four.", previous_response_id=third["id"])
    assert fourth["usage"]["input_tokens"] > third["usage"]["input_tokens"] > second["usage"]["input_tokens"]


async def test_another_connection_cannot_continue_an_unstored_response() -> None:
    async with connected() as (running, client):
        first = await client.response(input="One.", store=False)
        async with await SocketClient.to(running) as other:
            event = {"type": "response.create", "input": "Two.", "previous_response_id": first["id"]}
            assert (await refused(other, event))[1] == "previous_response_not_found"


@pytest.mark.slow
async def test_memory_forgets_the_longest_unused_response() -> None:
    """All connections share the limit of one body."""
    async with connected(max_body_megabytes=0.001) as (running, client), await SocketClient.to(running) as other:
        first = await client.response(input="a" * 260, store=False)
        await other.response(input="b" * 260, store=False)
        event = {"type": "response.create", "input": "?", "previous_response_id": first["id"]}
        assert (await refused(client, event))[1] == "previous_response_not_found"


@pytest.mark.slow
async def test_requests_of_one_lane_are_answered_one_after_the_other() -> None:
    async with connected() as (_, client):
        for index in range(5):
            await client.create(input=f"{index}.")
        responses = [(await client.stream())[-1]["response"] for _ in range(5)]
    assert [text(response) for response in responses] == [f"{index}." for index in range(5)]


@pytest.mark.slow
async def test_lanes_run_together_and_name_their_events() -> None:
    model = PacedModel(endless, seconds_per_token=0.001)  # so that each token has an event of its own
    async with connected(model) as (_, client):
        model.hold()
        await client.create(input="Go.", stream_id="slow", max_output_tokens=50)
        await client.create(input="Hi.", stream_id="quick")
        model.go()
        events = [await client.event()]
        while len([event for event in events if event["type"] in ("response.completed", "response.incomplete")]) < 2:
            events.append(await client.event())
    by_lane = {name: [event for event in events if event["stream_id"] == name] for name in ("slow", "quick")}
    assert sum(map(len, by_lane.values())) == len(events)
    assert types(by_lane["quick"]) == [*ANSWER[:4], *["response.output_text.delta"] * 3, *ANSWER[5:]]
    for lane in by_lane.values():
        wire.check_stream([{key: value for key, value in event.items() if key != "stream_id"} for event in lane])
    quick_end = events.index(by_lane["quick"][-1])
    assert events.index(by_lane["slow"][0]) < quick_end < events.index(by_lane["slow"][-1])


@pytest.mark.slow
async def test_new_lane_forks_a_response_of_another_one() -> None:
    async with connected() as (_, client):
        planned = await client.response(input="Plan.", store=False, stream_id="planner")
        fork = await client.response(
            input="Criticize.", store=False, stream_id="critic", previous_response_id=planned["id"]
        )
        again = await client.response(
            input="Go on.", store=False, stream_id="planner", previous_response_id=planned["id"]
        )
    assert fork["previous_response_id"] == again["previous_response_id"] == planned["id"]


async def test_failed_fork_leaves_the_response_to_its_own_lane() -> None:
    async with connected() as (_, client):
        first = await client.response(input="Plan.", store=False, stream_id="planner")
        output = [{"type": "function_call_output", "call_id": "none", "output": ""}]
        fork = {"type": "response.create", "input": output, "previous_response_id": first["id"], "stream_id": "critic"}
        assert await refused(client, fork) == (400, INVALID, "input[0].call_id")
        assert await client.response(input="Go.", store=False, stream_id="planner", previous_response_id=first["id"])


CREATE = {"type": "response.create", "model": NAME, "input": "Hi."}
REFUSED: dict[str, tuple[Any, tuple[int, str, str | None]]] = {
    "no object": ([], (400, INVALID, None)),
    "no type": ({"input": "Hi."}, (400, INVALID, None)),
    "unknown type": ({"type": "response.cancel"}, (400, "unknown_event_type", "type")),
    "type that is no text": ({"type": 1}, (400, INVALID, "type")),
    "empty lane": (CREATE | {"stream_id": ""}, (400, "invalid_stream_id", "stream_id")),
    "lane that is no text": (CREATE | {"stream_id": 7}, (400, "invalid_stream_id", "stream_id")),
    "lane with a space": (CREATE | {"stream_id": "a b"}, (400, "invalid_stream_id", "stream_id")),
    "long lane": (CREATE | {"stream_id": "a" * 257}, (400, "invalid_stream_id", "stream_id")),
    "background": (CREATE | {"background": True}, (400, INVALID, "background")),
    "generate that is no bool": (CREATE | {"generate": "no"}, (400, INVALID, "generate")),
    "no input": ({"type": "response.create"}, (400, INVALID, "input")),
    "another model": (CREATE | {"model": "nope"}, (404, "model_not_found", "model")),
    "a field of chat": (CREATE | {"max_tokens": 5}, (400, INVALID, "max_tokens")),
    "too long": (CREATE | {"input": "x" * 5000}, (400, "context_length_exceeded", "input")),
    "steer without a response": ({"type": "response.steer", "input": "Hi."}, (400, INVALID, None)),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_event_gets_an_error_and_the_connection_goes_on(case: str) -> None:
    event, error = REFUSED[case]
    async with connected() as (_, client):
        assert await refused(client, event) == error
        assert text(await client.response(input="Hi.")) == "Hi."


@pytest.mark.parametrize(
    "message",
    [
        *("", "nonsense", "{", '{"type": "response.create"', "[" * 100_000),
        '{"type": "response.create", "input": "Hi.", "stream_id": 1e400}',
    ],
)
async def test_message_that_cannot_be_read_gets_an_error(message: str) -> None:
    async with connected() as (_, client):
        await client.send(TextMessage(message))
        assert (await client.event())["status"] == 400
        assert text(await client.response(input="Hi.")) == "Hi."


async def test_fields_of_the_envelope_are_not_skipped_fields() -> None:
    async with connected(strict_fields=True) as (_, client):
        response = await client.response(input="Hi.", stream=True, generate=True, stream_id="x.y-z_1", background=False)
    assert (text(response), response.get("responsed")) == ("Hi.", None)


@pytest.mark.slow
async def test_lanes_and_waiting_requests_are_limited() -> None:
    model = PacedModel(n_slots=1)
    async with connected(model, queue=200) as (_, client):
        for index in range(32):
            await client.response(input="Hi.", stream_id=f"lane-{index}")
        event = CREATE | {"stream_id": "another"}
        assert await refused(client, event) == (400, "websocket_stream_limit_reached", "stream_id")
        model.hold()
        for _ in range(65):
            await client.create(input="Hi.")
        await client.until("response.created")
        await client.create(input="One more.")
        error = (await client.until("error"))[-1]
        assert (error["status"], error["error"]["code"]) == (503, "server_busy")
        assert error["error"]["headers"] == {"retry-after": "1"}
        model.go()
        assert len([await client.until("response.completed") for _ in range(65)]) == 65


async def test_full_queue_of_the_server_gives_the_error_of_http() -> None:
    model = PacedModel(endless, n_slots=1)
    async with connected(model, queue=0) as (running, client), await SocketClient.to(running) as other:
        model.hold()
        await client.create(input="Go.")
        await client.until("response.in_progress")
        await other.create(input="Hi.")
        error = await other.event()
        assert (error["status"], error["error"]["code"]) == (503, "server_busy")
        assert int(error["error"]["headers"]["retry-after"]) >= 1


async def test_response_that_fails_ends_with_one_terminal_event() -> None:
    async with connected(answer_timeout_seconds=0.01) as (_, client):
        response = await client.response(input="x" * 1000)
        assert response["status"] == "failed"
        event = CREATE | {"previous_response_id": response["id"]}
        assert (await refused(client, event))[1] == "previous_response_not_found"


LEAVES: dict[str, Callable[[SocketClient], Any]] = {
    "FIN": lambda client: client.http.__aexit__(),
    "RST": lambda client: client.http.reset(),
    "half close": lambda client: client.http.half_close(),
    "close frame": lambda client: client.http.send(b"\x88\x80\0\0\0\0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("way", LEAVES)
async def test_hang_up_frees_the_slot_within_a_step(
    way: str, store: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Queued requests and other lanes end too."""
    caplog.set_level(logging.DEBUG, "responsed.http")
    model = PacedModel(endless, n_slots=1)
    async with connected(model, state=tmp_path) as (running, client):
        model.hold()
        await client.create(input="Go.", store=store, stream_id="a")
        await client.create(input="Go.", store=store, stream_id="b")
        await client.create(input="Go.", store=store, stream_id="a")
        model.allow(5)
        await model.wait_begun(6)  # the model is in a step
        await LEAVES[way](client)
        await trio.sleep(0.1)
        model.allow(2)
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()
        assert (running.app.running, running.app.waiting) == (0, 0)
        model.go()
        assert text((await post(running, input="Hi.")).json) == "Hi."
        assert running.app._services.bodies._occupied == 0
    assert caplog.text.count("WEBSOCKET /v1/responses 0 client disconnected ") == 2  # one has never begun


@pytest.mark.slow
async def test_client_that_reads_nothing_stops_no_other() -> None:
    """Its own connection ends after --write-timeout; the others' streams go on."""
    model = ScriptedModel(lambda message: b"word " * 3000 if message == b"Go." else message, n_ctx=1 << 15)
    async with connected(model, write_timeout_seconds=0.5) as (running, client):
        for index in range(16):
            await client.create(
                input="Go.", stream_id=str(index), top_logprobs=20, include=["message.output_text.logprobs"]
            )
        async with await SocketClient.to(running) as other:
            assert text(await other.response(input="Hi.")) == "Hi."
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()
        assert (running.app.running, running.app.waiting) == (0, 0)


async def test_shutdown_ends_idle_connections_with_1012() -> None:
    async with served() as running, await SocketClient.to(running) as client:
        await client.response(input="Hi.")
        signal.raise_signal(signal.SIGTERM)
        assert await client.closed() == (1012, "the server is stopping")


async def test_shutdown_frees_the_memory_of_an_unfinished_message() -> None:
    async with served() as running, await SocketClient.to(running) as client:
        await client.http.send(frame(1, b"x" * 1000, fin=False) + frame(9))
        while not client.pongs:  # the server has read the fragment
            await client.next_event()
        assert running.app._services.bodies._occupied >= 1000
        signal.raise_signal(signal.SIGTERM)
        assert (await client.closed())[0] == 1012
        await running.app.wait_idle()
        assert running.app._services.bodies._occupied == 0


async def test_shutdown_ends_a_running_response_and_then_the_connection() -> None:
    """The queued request gets an error, the running response its terminal event."""
    model = PacedModel(endless)
    async with served(model, shutdown_timeout_seconds=0.2) as running, await SocketClient.to(running) as client:
        model.hold()
        await client.create(input="Go.")
        await client.create(input="Later.")
        await client.until("response.in_progress")
        model.allow(5)
        signal.raise_signal(signal.SIGTERM)
        events = await client.until("response.failed")
        assert types(events)[-2:] == ["error", "response.failed"]
        later = await client.event()
        assert (later["type"], later["status"], later["error"]["code"]) == ("error", 503, "unavailable")
        assert await client.closed() == (1012, "the server is stopping")
        model.go()


@pytest.mark.slow
async def test_shutdown_lets_a_short_response_end() -> None:
    model = PacedModel(lambda message: b"word " * 20)
    async with served(model) as running, await SocketClient.to(running) as client:
        model.hold()
        await client.create(input="Hi.")
        model.allow(3)
        await client.until("response.output_text.delta")
        signal.raise_signal(signal.SIGTERM)
        model.go()
        assert text((await client.until("response.completed"))[-1]["response"]) == "word " * 20
        assert await client.closed() == (1012, "the server is stopping")


async def test_reload_keeps_the_connection_and_checks_its_key_again() -> None:
    bearer = "Authorization: Bearer secret"
    async with served(keys={"ann": "secret"}) as running, await SocketClient.to(running, bearer) as client:
        await client.response(input="Hi.")
        keys = running.app.keys
        running.app.reload(running.config, api_keys({"ben": "other"}))
        assert (await refused(client, CREATE))[:2] == (401, "invalid_api_key")
        running.app.reload(running.config, keys)
        assert text(await client.response(input="Hi.")) == "Hi."


@pytest.mark.slow
async def test_old_connection_accepts_no_request() -> None:
    model = PacedModel(endless)
    async with served(model) as running:
        running.app.websockets.limits = WebSocketLimits(age=0.1)
        async with await SocketClient.to(running) as client:
            model.hold()
            await client.create(input="Hi.")
            await client.until("response.in_progress")
            await trio.sleep(0.12)
            assert (await refused(client, CREATE))[:2] == (400, "websocket_connection_limit_reached")
            model.go()
            assert text((await client.until("response.completed"))[-1]["response"]) == "Hi."
            assert (await client.event())["error"]["code"] == "websocket_connection_limit_reached"
            assert (await client.closed())[0] == 1000


async def test_internal_error_closes_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    def broken(turn: SessionTurn, began: float) -> None:
        raise RuntimeError("why")

    async with connected() as (running, client), await SocketClient.to(running) as other:
        running.app.websockets._record = broken  # of connections from now on
        async with await SocketClient.to(running) as failing:
            await failing.create(input="Hi.")
            assert await failing.closed() == (1011, "internal error")
        assert "RuntimeError: why" in caplog.text
        for each in (client, other):
            assert text(await each.response(input="Hi.")) == "Hi."


@pytest.mark.slow
async def test_codex_gets_events_while_its_prompt_is_evaluated() -> None:
    """Other clients have pings."""
    model, codex = PacedModel(), "Originator: codex_exec"
    async with served(model, heartbeat_seconds=0.05) as running, await SocketClient.to(running, codex) as client:
        model.hold()
        await client.create(input="Hi.")
        for _ in range(4):
            await client.until("response.in_progress")
        model.go()
        assert text((await client.until("response.completed"))[-1]["response"]) == "Hi."


@pytest.mark.slow
async def test_stored_response_behind_an_unstored_one_is_continued_on_its_connection_only(tmp_path: Path) -> None:
    async with connected(state=tmp_path) as (running, client):
        first = await client.response(input="One.", store=False)
        second = await client.response(input="Two.", previous_response_id=first["id"])
        assert (await get(running, f"/v1/responses/{second['id']}")).json == second
        over_http = await post(running, input="Three.", previous_response_id=second["id"])
        assert (over_http.status, over_http.json["error"]["code"]) == (400, "previous_response_not_found")
        assert await client.response(input="Three.", previous_response_id=second["id"])


async def test_idle_connection_makes_room_for_a_new_one() -> None:
    """Connections with a response in progress stay."""
    model = PacedModel(endless)
    async with served(model, max_connections=2) as running, await SocketClient.to(running) as busy:
        model.hold()
        await busy.create(input="Go.", max_output_tokens=20)
        await busy.until("response.in_progress")
        async with await SocketClient.to(running) as idle:
            assert (await get(running, "/health")).status == 200
            assert await idle.closed() == (1013, "too many connections")
        model.go()
        assert (await busy.until("response.incomplete"))[-1]["response"]["status"] == "incomplete"


@pytest.mark.slow
async def test_thousands_of_messages_at_once_leave_turns_to_others() -> None:
    """Another client is answered before the errors about these messages are complete."""
    count = 2000
    async with connected() as (running, client), trio.open_nursery() as nursery:
        await client.http.send(frame(1, b"x") * count)
        answered: list[int] = []

        async def ask() -> None:
            assert (await get(running, "/health")).status == 200
            answered.append(errors)

        errors = 0
        nursery.start_soon(ask)
        while errors < count:
            assert (await client.event())["status"] == 400
            errors += 1
        assert answered
        assert answered[0] < count


async def test_log_names_the_transport(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "responsed")
    async with connected(metrics=True) as (running, client):
        await client.response(input="Hi.")
        await refused(client, CREATE | {"model": "nope"})
        await client.send(CloseConnection(1000))
        await client.closed()
        await running.app.wait_idle()
        counted = (await exchange(running, "GET", "/metrics")).body.decode()
    log = re.sub(r"(req|resp)_\w+", r"\1", caplog.text)
    assert re.search(r"resp req 127\.0\.0\.1 /v1/responses websocket completed: ", log)
    assert re.search(r"req 127\.0\.0\.1 WEBSOCKET /v1/responses 200 completed [\d.]+ ms", log)
    assert re.search(r"req 127\.0\.0\.1 WEBSOCKET /v1/responses 404 model_not_found \('model'\) [\d.]+ ms", log)
    assert re.search(r"req 127\.0\.0\.1 GET /v1/responses 101 closed 1000 [\d.]+ ms", log)
    for status in (101, 200, 404):
        assert f'responsed_requests_total{{code="{status}",route="/v1/responses"}} 1.0' in counted


@pytest.mark.slow
def test_official_client_reads_every_event_of_a_response() -> None:
    """openai-python 3.57, with strict validation: create, continue, warm up, lanes, errors."""

    def talk(url: str) -> list[list[str]]:
        found = []
        with official_client(url, _strict_response_validation=True, max_retries=2).responses.connect() as connection:
            connection.response.create(model=NAME, input="Hi.", store=False, generate=False)
            found.append(read := until_end(connection))
            previous = read[-1].response.id
            connection.response.create(
                model=NAME, input="Hi.", store=False, previous_response_id=previous, stream_id="main"
            )
            found.append(until_end(connection))
            connection.response.create(model=NAME, input="Hi.", previous_response_id="resp_none", stream_id="main")
            found.append(until_end(connection))
        return [[event.type for event in events] for events in found] + [[event.stream_id or "" for event in found[2]]]

    async def main() -> list[list[str]]:
        async with served() as running:
            return await trio.to_thread.run_sync(talk, running.url)

    warmed, answered, failed, lanes = trio.run(main)
    assert warmed == ["response.created", "response.in_progress", "response.completed"]
    assert answered == [*ANSWER[:4], *["response.output_text.delta"] * 3, *ANSWER[5:]]
    assert (failed, lanes) == (["error"], ["main"])


def until_end(connection: Any) -> list[Any]:
    events = []
    for event in connection:
        events.append(event)
        if event.type in ("response.completed", "response.incomplete", "response.failed", "error"):
            break
    return events


@pytest.mark.slow
def test_lanes_of_the_official_session_get_their_responses() -> None:
    """openai-python 3.57, `openai.lib.responses_websocket`: one reader, two lanes, and the default one."""
    limits = ResponsesWebSocketLimits(
        max_lanes=8, max_events_per_lane=1000, max_events=5000, max_bytes_per_lane=1 << 24, max_bytes=1 << 25
    )

    def talk(url: str) -> list[str]:
        with (
            official_client(url, _strict_response_validation=True, max_retries=2) as client,
            client.responses.connect() as connection,
            ResponsesWebSocketSession(connection, limits=limits) as session,
        ):
            lanes = [session.lane("planner"), session.lane("critic"), session.default]
            for index, lane in enumerate(lanes):
                lane.send({"type": "response.create", "model": NAME, "input": f"{index}.", "store": False})
            first = [lane.get_final_response(timeout=PATIENCE) for lane in lanes]
            for lane, response in zip(lanes, first, strict=True):
                lane.send(
                    {"type": "response.create", "model": NAME, "input": "Go.", "previous_response_id": response.id}
                )
            return [response.output_text for response in first] + [
                lane.get_final_response(timeout=PATIENCE).output_text for lane in lanes
            ]

    async def main() -> list[str]:
        async with served() as running:
            return await trio.to_thread.run_sync(talk, running.url)

    assert trio.run(main) == ["0.", "1.", "2.", "Go.", "Go.", "Go."]


@pytest.mark.slow
async def test_reference_in_a_continued_response_is_resolved_once(tmp_path: Path) -> None:
    """The connection remembers the item itself: the next prompt has it too."""
    async with connected(state=tmp_path) as (running, client):
        stored = (await post(running, input="Remember the ship.")).json
        (item,) = (await get(running, f"/v1/responses/{stored['id']}/input_items")).json["data"]
        reference = {"type": "item_reference", "id": item["id"]}
        first = await client.response(input=[reference, {"role": "user", "content": "Hi."}], store=False)
        second = await client.response(input="Again.", store=False, previous_response_id=first["id"])
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
