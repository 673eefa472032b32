"""Resume a stream at any event: it repeats the bytes sent, then continues."""

from pathlib import Path

import msgspec
import openai
import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
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
    frames,
    get,
    official_client,
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
    """Check that resuming after each event returns the rest; after the last event, the terminal event again."""
    for number in range(-1, len(frames(body)) + 2):
        assert (number, (await again(running, response_id, number)).body) == (number, behind(body, number))
    assert (await again(running, response_id)).body == body


def id_of(answer: Answer) -> str:
    response_id: str = answer.events[0]["response"]["id"]
    return response_id


@pytest.mark.slow
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


@pytest.mark.slow
async def test_failed_stream_is_replayed_with_its_error(tmp_path: Path) -> None:
    async with served(PacedModel(), state=tmp_path) as running:
        broken = await post(running, input="x" * 4050, max_output_tokens=500, stream=True)
        await check_every_beginning(running, id_of(broken), broken.body)


@pytest.mark.slow
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


@pytest.mark.slow
async def test_resume_beyond_events_left_by_crash_gets_terminal_event(tmp_path: Path) -> None:
    """Its number is one that a client which drops read events does not drop."""
    store = open_store(tmp_path / "responses.db")
    first = Response(id="resp_a", created_at=7, model="m", store=True, background=True, temperature=1, top_p=1)
    encoded = msgspec.json.encode(first)
    store.begin(Stored(id="resp_a", created_at=7, status="queued", first=encoded, response=encoded, items=b"[]"), 1e9)
    store.close()
    received: list[tuple[str, int]] = []

    def use(url: str) -> None:
        with official_client(url, timeout=PATIENCE) as client:
            for number in (3, 57):  # the client may have read another event with the number of the terminal one
                for event in client.responses.retrieve("resp_a", stream=True, starting_after=number):
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
    assert received == [("response.failed", 4), ("response.failed", 58)]


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


@pytest.mark.slow
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


@pytest.mark.slow
async def test_unstreamed_response_ends_with_its_client(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        async with await Client.to(running) as client:
            model.hold()
            await client.create(input="Hello")
            await model.wait_begun(1)
        await running.app.wait_idle()
        model.go()


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


@pytest.mark.slow
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
    outcome = "/v1/responses stream cancelled (client disconnected): "
    assert any(outcome in record.getMessage() for record in caplog.records)


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
