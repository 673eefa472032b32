"""Resume a stream at any event: it repeats the bytes sent, then continues."""

import json
from pathlib import Path

import msgspec
import openai
import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from server.protocol import sse
from server.protocol.response import Response
from server.store.responses import Stored
from server.stream.replay import STOPPED
from tests.support import wire
from tests.support.helpers import (
    PATIENCE,
    Answer,
    Client,
    PacedModel,
    Running,
    behind,
    encode,
    exchange,
    frames,
    get,
    open_store,
    post,
    served,
    text,
    types,
)

DELTA = "response.output_text.delta"


async def again(running: Running, response_id: str, number: int | None = None) -> Answer:
    after = "" if number is None else f"&starting_after={number}"
    return await get(running, f"/v1/responses/{response_id}?stream=true{after}")


async def check_every_beginning(running: Running, response_id: str, body: bytes) -> None:
    """Check that resuming after each event returns the rest; after the last event, the terminal event."""
    for number in range(-1, len(frames(body)) + 2):
        assert (number, (await again(running, response_id, number)).body) == (number, behind(body, number))
    assert (await again(running, response_id)).body == body


def id_of(answer: Answer) -> str:
    response_id: str = answer.events[0]["response"]["id"]
    return response_id


async def test_ended_stream_can_be_resumed_after_restart(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        streamed = await post(running, input="naïve", stream=True)
        await check_every_beginning(running, id_of(streamed), streamed.body)
    async with served(state=tmp_path) as running:
        await check_every_beginning(running, id_of(streamed), streamed.body)


async def test_unstreamed_response_can_be_streamed_later(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        whole = (await post(running, input="Hello")).json
        assert (await again(running, whole["id"])).events[-1]["response"] == whole


@pytest.mark.slow
async def test_long_stored_stream_is_rebuilt(tmp_path: Path) -> None:
    async with served(ScriptedModel(lambda message: message * 1500, n_ctx=16_000), state=tmp_path) as running:
        streamed = await post(running, input="Hello ", stream=True)
        assert (await again(running, id_of(streamed))).body == streamed.body


async def test_failed_stream_is_replayed_with_its_error(tmp_path: Path) -> None:
    async with served(PacedModel(), state=tmp_path) as running:
        broken = await post(running, input="x" * 4000, max_output_tokens=500, stream=True)
        await check_every_beginning(running, id_of(broken), broken.body)


@pytest.mark.parametrize("background", [True, False])
async def test_running_stream_can_be_resumed(background: bool, tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path, resume_window_seconds=60.0) as running, await Client.to(running) as other:
        model.hold()
        async with await Client.to(running) as client:
            await client.create(input="Hello, world", stream=True, background=background)
            response_id, body = await client.created()
            model.allow(3)
            while body.count(b"event: " + DELTA.encode()) < 3:
                body += await client.chunk()
        await model.wait_begun(4)
        number = len(frames(body)) - 2
        await other.request("GET", f"/v1/responses/{response_id}?stream=true&starting_after={number}")
        await other.head()
        assert await other.chunk() == frames(body)[-1]  # the missed events, at once
        model.go()
        body += await other.rest_of_stream()
        assert wire.events(body)[-1]["response"]["status"] == "completed"
        await check_every_beginning(running, response_id, body)


async def test_several_readers_get_equal_streams(tmp_path: Path) -> None:
    model = PacedModel()
    bodies: list[bytes] = []

    async def read(running: Running, response_id: str) -> None:
        bodies.append((await again(running, response_id)).body)

    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Hello", stream=True)
        response_id, first = await client.created()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read, running, response_id)
                model.allow(1)
                await trio.testing.wait_all_tasks_blocked()
            model.go()
        whole = first + await client.rest_of_stream()
    assert bodies == [whole] * 5


async def test_resume_after_last_event_waits_for_end(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        model.hold()
        response_id = (await post(running, input="Hello", background=True)).json["id"]
        await client.request("GET", f"/v1/responses/{response_id}?stream=true&starting_after=1000")
        await client.head()
        model.go()
        rest = await client.rest_of_stream()
        assert rest == behind((await again(running, response_id)).body, 1000)


async def test_resume_beyond_events_left_by_crash_gets_terminal_event(tmp_path: Path) -> None:
    """Its number is one that a client which drops read events does not drop."""
    store = open_store(tmp_path)
    first = Response(id="resp_a", created_at=7, model="m", store=True, background=True, temperature=1, top_p=1)
    encoded = msgspec.json.encode(first)
    store.begin(Stored(id="resp_a", created_at=7, status="queued", first=encoded, response=encoded, items=b"[]"), 1e9)
    store.close()
    received: list[tuple[str, int]] = []

    def use(url: str) -> None:
        with openai.OpenAI(base_url=url, api_key="none", timeout=PATIENCE, max_retries=0) as client:
            for event in client.responses.retrieve("resp_a", stream=True, starting_after=57):
                received.append((event.type, event.sequence_number))
            # Its helper requests all events and drops read ones itself, but it raises for an `error` event.
            helper = client.responses.stream(response_id="resp_a", starting_after=57)
            with helper as stream, pytest.raises(openai.APIError, match=STOPPED):
                next(iter(stream))

    async with served(state=tmp_path) as running:
        whole = await again(running, "resp_a")
        await check_every_beginning(running, "resp_a", whole.body)
        await trio.to_thread.run_sync(use, running.url)
    assert types(whole.events) == ["response.created", "response.in_progress", "error", "response.failed"]
    assert received == [("response.failed", 58)]


async def status(running: Running, response_id: str) -> str:
    found: str = (await get(running, f"/v1/responses/{response_id}")).json["status"]
    return found


async def drop(running: Running, model: PacedModel, **body: object) -> str:
    """Start a stream whose client disconnects after the first text; return its id."""
    async with await Client.to(running) as client:
        model.hold()
        await client.create(input="Hello", stream=True, **body)
        response_id, _ = await client.created()
        model.allow(1)
        await client.frame(DELTA)
        await model.wait_begun(2)
    return response_id


async def test_stored_stream_continues_without_client(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path, resume_window_seconds=60.0) as running:
        response_id = await drop(running, model)
        model.go()
        await running.app.wait_idle()
        assert await status(running, response_id) == "completed"


async def test_stored_stream_without_client_ends_after_resume_window(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path, resume_window_seconds=0.05) as running:
        response_id = await drop(running, model)
        await running.app.wait_idle()
        model.go()
        assert await status(running, response_id) == "cancelled"
        wire.check_stream((await again(running, response_id)).events)


async def test_resumed_stream_outlives_resume_window(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path, resume_window_seconds=0.5) as running, await Client.to(running) as client:
        response_id = await drop(running, model)
        await client.request("GET", f"/v1/responses/{response_id}?stream=true")
        await client.head()
        await client.frame(DELTA)
        mock_clock.jump(0.6)
        await trio.testing.wait_all_tasks_blocked(0.01)
        model.go()
        await client.frame("response.completed")


async def test_unstored_stream_cannot_be_resumed(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        response_id = await drop(running, model, store=False)
        await running.app.wait_idle()  # without another step of the model: the cancellation is immediate
        model.go()
        assert (await again(running, response_id)).status == 404


async def test_unstreamed_response_ends_with_its_client(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        async with await Client.to(running) as client:
            model.hold()
            await client.create(input="Hello")
            await model.wait_begun(1)
        await running.app.wait_idle()
        model.go()


async def test_background_response_by_official_client_is_resumed(tmp_path: Path) -> None:
    model = PacedModel()

    def use(url: str) -> None:
        with openai.OpenAI(base_url=url, api_key="none", timeout=PATIENCE, max_retries=0) as client:
            model.hold()
            made = client.responses.create(model="scripted", input="Hello", background=True)
            assert (made.status, made.background) == ("queued", True)
            model.allow(3)
            assert client.responses.retrieve(made.id).status in ("queued", "in_progress")
            stream = client.responses.retrieve(made.id, stream=True, starting_after=2)
            first = next(iter(stream))
            assert (first.type, first.sequence_number) == ("response.output_item.added", 3)
            model.go()
            *_, last = stream
            assert last.type == "response.completed"
            assert client.responses.retrieve(made.id).output_text == "Hello"
            chained = client.responses.create(model="scripted", input="And?", previous_response_id=made.id)
            assert chained.output_text == "And?"
            items = client.responses.input_items.list(chained.id, order="asc", limit=1)
            roles = [item.model_dump()["role"] for item in items]
            assert roles == ["user", "assistant", "user"]

            model.hold()
            made = client.responses.create(model="scripted", input="Hello", background=True)
            assert client.responses.cancel(made.id).status == "cancelled"
            model.go()
            with pytest.raises(openai.BadRequestError):
                client.responses.cancel(chained.id)
            client.responses.delete(made.id)
            with pytest.raises(openai.NotFoundError) as gone:
                client.responses.retrieve(made.id)
            assert gone.value.code == "not_found"

    async with served(model, state=tmp_path) as running:
        await trio.to_thread.run_sync(use, running.url)


# In the background


async def test_background_response_is_queued_then_completed(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        model.hold()
        queued = (await post(running, input="Hello", background=True)).json
        wire.check_response(queued)
        assert (queued["status"], queued["background"], queued["store"]) == ("queued", True, True)
        model.allow(1)
        await model.wait_begun(2)
        polled = (await get(running, f"/v1/responses/{queued['id']}")).json
        wire.check_response(polled)
        assert polled == queued | {"status": "in_progress"}
        model.go()
        await running.app.wait_idle()
        done = await get(running, f"/v1/responses/{queued['id']}")
        wire.check_response(done.json)
        assert (done.json["status"], done.text) == ("completed", "Hello")


async def test_background_stream_begins_queued(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        events = (await post(running, input="Hi", background=True, stream=True)).events
    assert types(events)[:4] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert [event["response"]["status"] for event in events[:3]] == ["queued", "queued", "in_progress"]


@pytest.mark.parametrize("stream", [True, False])
async def test_background_response_continues_without_client(stream: bool, tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path, resume_window_seconds=0.0) as running:
        model.hold()
        async with await Client.to(running) as client:
            await client.create(input="Hello", background=True, stream=stream)
            if stream:
                await client.created()
            else:
                assert (await client.answer()).status == 200
            await model.wait_begun(1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        model.go()
        await running.app.wait_idle()
        assert bytes(model.decoded[-1].tokens) == b"o"


def cancelled_body(answer: Answer) -> tuple[int, str]:
    wire.check_response(answer.json)
    return answer.status, answer.json["status"]


async def test_cancel_ends_response_and_frees_slot(tmp_path: Path) -> None:
    model = PacedModel(lambda message: message * 1000, n_slots=1)
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="a", background=True, stream=True)
        response_id, body = await client.created()
        waiting = (await post(running, input="b", background=True)).json["id"]
        model.allow(2)
        await model.wait_begun(3)
        for each in (waiting, response_id, response_id, waiting):
            answer = await exchange(running, "POST", f"/v1/responses/{each}/cancel", b"")
            assert cancelled_body(answer) == (200, "cancelled")
            assert (await get(running, f"/v1/responses/{each}")).json == answer.json
        events = wire.events(body + await client.rest_of_stream())
        assert events[-1]["response"]["status"] == "cancelled"
        assert types(wire.events((await again(running, waiting)).body)) == [
            "response.created",
            "response.queued",
            "response.incomplete",
        ]
        model.go()
        assert (await post(running, input="c", max_output_tokens=1)).text == "c"
    assert not any(ord("b") in chunk.tokens for chunk in model.decoded)


async def test_cancel_of_foreground_response_is_rejected(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        done = (await post(running, input="Hi", background=True)).json["id"]
        await running.app.wait_idle()
        answer = await exchange(running, "POST", f"/v1/responses/{done}/cancel")
        assert cancelled_body(answer) == (200, "completed")
        model.hold()
        await client.create(input="Hi", stream=True)
        response_id, _ = await client.created()
        for running_still in (True, False):
            refused = await exchange(running, "POST", f"/v1/responses/{response_id}/cancel")
            message = f"Response {response_id!r} cannot be cancelled: it was created without `background: true`."
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
            assert (refused.status, refused.json) == (400, {"error": error})
            if running_still:
                model.go()
                await client.frame("response.completed")


@pytest.mark.parametrize(
    ("stored", "settings", "why"),
    [(True, {"store": False}, "leave `store` out"), (False, {}, "this server stores none: start it with --store PATH")],
)
async def test_background_response_without_storage_is_rejected(
    stored: bool, settings: dict[str, bool], why: str, tmp_path: Path
) -> None:
    async with served(state=tmp_path if stored else None) as running:
        refused = await post(running, input="Hi", background=True, **settings)
    assert (refused.status, refused.json["error"]["param"]) == (400, "background")
    assert why in refused.json["error"]["message"]


# Heartbeats


def statuses(body: bytes) -> list[tuple[str, str]]:
    """Return the status of each event that contains a response."""
    found = [json.loads(frame.data) for frame in wire.parse_sse(body) if frame.event is not None]
    return [(event["type"].removeprefix("response."), event["response"]["status"]) for event in found]


@pytest.mark.parametrize("busy", [True, False])
async def test_stream_without_text_sends_heartbeats(busy: bool, tmp_path: Path) -> None:
    """During prefill and while queued, it sends comments and one `response.in_progress`."""
    model = PacedModel(n_slots=1)
    async with (
        served(model, state=tmp_path, heartbeat_seconds=0.02) as running,
        await Client.to(running) as before,
        await Client.to(running) as client,
    ):
        model.hold()
        if busy:
            await before.create(input="x", stream=True)
            await model.wait_begun(1)
        await client.create(input="Hello", stream=True)
        _, body = await client.created()
        await model.wait_begun(1)
        while body.count(sse.PING) < 4:
            body += await client.chunk()
        model.go()
        body += await client.rest_of_stream()
        assert body.rindex(sse.PING) < body.index(b"event: response.output_item.added")
        assert types(wire.events(body)).count("response.in_progress") == 1
        assert wire.events(body)[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize("header", ["originator: codex_cli_rs", "user-agent: codex_exec/0.169.0 (Linux)"])
@pytest.mark.parametrize("busy", [True, False])
async def test_stream_to_codex_repeats_event_until_text(busy: bool, header: str, tmp_path: Path) -> None:
    """Codex resets its idle timeout at events only."""
    model = PacedModel(n_slots=1)
    async with (
        served(model, state=tmp_path, heartbeat_seconds=0.02) as running,
        await Client.to(running) as before,
        await Client.to(running) as client,
    ):
        model.hold()
        if busy:
            await before.create(input="x", stream=True)
            await model.wait_begun(1)
        await client.request("POST", "/v1/responses", encode(input="Hello", stream=True), header)
        response_id, body = await client.created()
        await model.wait_begun(1)
        while body.count(b"event: response.in_progress") < 4:
            body += await client.chunk()
        opening = [("created", "queued"), ("queued", "queued")] if busy else [("created", "in_progress")]
        received = statuses(body)
        assert received == opening + [("in_progress", "in_progress")] * (len(received) - len(opening))
        model.go()
        body += await client.rest_of_stream()
        assert wire.events(body)[-1]["response"]["status"] == "completed"
        assert (await again(running, response_id)).body == body


async def test_response_without_slot_is_queued() -> None:
    model = PacedModel(n_slots=1)
    async with served(model) as running, await Client.to(running) as before, await Client.to(running) as client:
        model.hold()
        await before.create(input="x", stream=True)
        await model.wait_begun(1)
        await client.create(input="Hello", stream=True)
        _, body = await client.created()
        assert statuses(body) == [("created", "queued"), ("queued", "queued")]
        await before.head()
        model.go()
        await before.frame("response.completed")
        events = wire.events(body + await client.rest_of_stream())
    assert types(events).count("response.in_progress") == 1


async def test_return_progress_reports_prompt_progress(tmp_path: Path) -> None:
    """Heartbeats are frequent here, so the stream reports each evaluated part of the prompt."""
    model = PacedModel()
    async with served(model, state=tmp_path, heartbeat_seconds=0.02) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="x" * 2000, stream=True, return_progress=True, max_output_tokens=1)
        response_id, body = await client.created()
        model.allow(1)
        while b"prompt_progress" not in body:
            body += await client.chunk()
        model.go()
        body += await client.rest_of_stream()
        found = [event["prompt_progress"] for event in wire.events(body) if "prompt_progress" in event]
        first = {"total": 2002, "cache": 0, "processed": found[0]["processed"], "time_ms": found[0]["time_ms"]}
        assert found[0] == first
        assert 0 < found[0]["processed"] < 2002
        assert (await again(running, response_id)).body == body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("store", [True, False])
async def test_disconnect_ends_response_within_a_step(tmp_path: Path, stream: bool, store: bool) -> None:
    """OpenAI: "terminate the connection to cancel". Only `background: true` goes on."""
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path) as running:
        async with await Client.to(running) as client:
            model.hold()
            await client.create(input="leaves" * 100, stream=stream, store=store)
            await model.wait_begun(1)
        await running.app.wait_idle()
        begun = len(model.decoded)
        model.go()
        assert (await post(running, input="Hi")).text == "Hi"
    assert len([chunk for chunk in model.decoded[begun:] if ord("v") in chunk.tokens]) <= 1


@pytest.mark.parametrize("stored", [True, False])
async def test_disconnect_while_queued_frees_place(tmp_path: Path, stored: bool) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, queue=1) as running, await Client.to(running) as first:
        model.hold()
        await first.create(input="first")
        await model.wait_begun(1)
        async with await Client.to(running) as leaves:
            await leaves.create(input="leaves", stream=True, store=stored)
            response_id, _ = await leaves.created()
        async with await Client.to(running) as second:
            await trio.testing.wait_all_tasks_blocked(0.01)
            if stored:
                assert await status(running, response_id) == "cancelled"
            await second.create(input="second")
            await trio.testing.wait_all_tasks_blocked(0.01)
            model.go()
            assert [(await client.answer()).text for client in (first, second)] == ["first", "second"]


async def test_half_closed_client_gets_terminal_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "responsed.http")
    model = PacedModel()
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Hello", stream=True)
        response_id, body = await client.created()
        model.allow(2)
        body += await client.frame(DELTA)
        await client.half_close()
        await running.app.wait_idle()
        model.go()
        body += await client.rest_of_stream()
        last = wire.events(body)[-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
        assert body.endswith(b"data: [DONE]\n\n")
        assert last["response"] == (await get(running, f"/v1/responses/{response_id}")).json
    assert any("/v1/responses stream cancelled: " in record.getMessage() for record in caplog.records)


async def test_response_ended_by_shutdown_has_all_that_client_read(tmp_path: Path) -> None:
    model = PacedModel()
    async with (
        served(model, state=tmp_path, shutdown_timeout_seconds=0.0) as running,
        await Client.to(running) as client,
    ):
        model.hold()
        await client.create(input="Hello", stream=True)
        response_id, body = await client.created()
        model.allow(3)
        while body.count(b"event: " + DELTA.encode()) < 2:
            body += await client.chunk()
        await model.wait_begun(4)
        running.app.stop()
        model.go()
        body += await client.rest_of_stream()
    events = wire.events(body)
    read = "".join(event["delta"] for event in events if event["type"] == DELTA)
    async with served(state=tmp_path) as running:
        found = (await get(running, f"/v1/responses/{response_id}")).json
    assert (found["status"], text(found), found) == ("failed", read, events[-1]["response"])
    assert found["usage"]["output_tokens"] >= len(read) > 0
