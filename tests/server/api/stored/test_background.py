"""Background responses: they run without their client, and can be cancelled."""

from pathlib import Path

import openai
import pytest
import trio
import trio.testing

from tests.server.api.stored.test_resume import again
from tests.support import wire
from tests.support.helpers import (
    PATIENCE,
    Answer,
    Client,
    PacedModel,
    exchange,
    get,
    official_client,
    post,
    served,
    types,
)


@pytest.mark.slow
async def test_background_response_by_official_client_is_resumed(tmp_path: Path) -> None:
    model = PacedModel()

    def use(url: str) -> None:
        with official_client(url, timeout=PATIENCE) as client:
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


@pytest.mark.slow
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
