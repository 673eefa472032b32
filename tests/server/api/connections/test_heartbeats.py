"""Signs of life of a stream without text: comments, events for Codex, progress of the prompt."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from server.protocol import sse
from tests.server.api.stored.test_resume import again
from tests.support import wire
from tests.support.helpers import (
    Client,
    PacedModel,
    Running,
    encode,
    served,
    types,
)


class SilentStream(Struct):
    running: Running
    model: PacedModel
    client: Client
    response_id: str
    opening: bytes
    """First chunk."""


def statuses(body: bytes) -> list[tuple[str, str]]:
    """Return the status of each event that contains a response."""
    found = [json.loads(frame.data) for frame in wire.parse_sse(body) if frame.event is not None]
    return [(event["type"].removeprefix("response."), event["response"]["status"]) for event in found]


@asynccontextmanager
async def silent_stream(state: Path, *, busy: bool, headers: Sequence[str] = ()) -> AsyncIterator[SilentStream]:
    """Start a stream whose model generates nothing until it may go; `busy`: another stream has the slot."""
    model = PacedModel(n_slots=1)
    async with (
        served(model, state=state, heartbeat_seconds=0.02) as running,
        await Client.to(running) as before,
        await Client.to(running) as client,
    ):
        model.hold()
        if busy:
            await before.create(input="x", stream=True)
            await model.wait_begun(1)
        await client.request("POST", "/v1/responses", encode(input="Hello", stream=True), *headers)
        response_id, opening = await client.created()
        await model.wait_begun(1)
        yield SilentStream(running, model, client, response_id, opening)


@pytest.mark.slow
@pytest.mark.parametrize("busy", [True, False])
async def test_stream_without_text_sends_heartbeats(busy: bool, tmp_path: Path) -> None:
    """During prefill and while queued, it sends comments and one `response.in_progress`."""
    async with silent_stream(tmp_path, busy=busy) as silent:
        body = silent.opening
        while body.count(sse.PING) < 4:
            body += await silent.client.chunk()
        silent.model.go()
        body += await silent.client.rest_of_stream()
    assert body.rindex(sse.PING) < body.index(b"event: response.output_item.added")
    assert types(wire.events(body)).count("response.in_progress") == 1
    assert wire.events(body)[-1]["response"]["status"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("header", ["originator: codex_cli_rs", "user-agent: codex_exec/0.169.0 (Linux)"])
@pytest.mark.parametrize("busy", [True, False])
async def test_stream_to_codex_repeats_event_until_text(busy: bool, header: str, tmp_path: Path) -> None:
    """Codex resets its idle timeout at events only."""
    async with silent_stream(tmp_path, busy=busy, headers=[header]) as silent:
        body = silent.opening
        while body.count(b"event: response.in_progress") < 4:
            body += await silent.client.chunk()
        begin = [("created", "queued"), ("queued", "queued")] if busy else [("created", "in_progress")]
        received = statuses(body)
        assert received == begin + [("in_progress", "in_progress")] * (len(received) - len(begin))
        silent.model.go()
        body += await silent.client.rest_of_stream()
        assert wire.events(body)[-1]["response"]["status"] == "completed"
        assert (await again(silent.running, silent.response_id)).body == body


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "pings"), [("flex", True), ("default", False)])
async def test_stream_of_the_batch_lane_has_comments_while_it_pauses(tier: str, pings: bool) -> None:
    model = PacedModel(lambda message: b"Hello, you")
    async with served(model, heartbeat_seconds=0.02) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Hi", stream=True, service_tier=tier)
        body = b""
        model.allow(3)
        while b"response.output_text.delta" not in body:
            body += await client.chunk() if body else (await client.created())[1]
        await trio.sleep(0.2)
        model.go()
        rest = await client.rest_of_stream()
    assert (sse.PING in rest) is pings
