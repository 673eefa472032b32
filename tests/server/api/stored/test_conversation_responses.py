"""Responses in a conversation: they continue it and extend it."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
import trio

from engine.backends.scripted import ScriptedModel
from engine.model import ModelError
from server.store.conversations import Conversations, StoredItem
from server.store.errors import StoreError
from server.store.responses import Store
from tests.server.api.stored.test_conversations import (
    ALL,
    add,
    check_gone,
    items,
    listed_message,
    make,
    msg,
    no_conversation,
    path,
    refusal,
    seen,
    without_id,
)
from tests.support import wire
from tests.support.failing_stores import FullAtOnce, FullLater
from tests.support.helpers import (
    NAME,
    PATIENCE,
    Client,
    PacedModel,
    delete,
    encode,
    exchange,
    frames,
    get,
    official_client,
    post,
    served,
    text,
)

BEFORE = [msg("developer", "Be kind."), msg("user", "Hello"), msg("assistant", "Hm.")]


def turn(response: dict[str, Any], *input_: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items that a response adds to its conversation."""
    stem = response["id"].removeprefix("resp_")
    came = [{"id": f"msg_{stem}i{n:02}", **item} for n, item in enumerate(input_)]
    return [*came, *response["output"]]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
async def test_response_continues_conversation_and_extends_it(stream: bool, tmp_path: Path) -> None:
    """The whole conversation, sent afterwards as input, finds all its tokens in the KV cache."""
    turns = [*BEFORE, msg("user", "And?"), msg("assistant", "And?"), msg("user", "So.")]
    async with served(ScriptedModel(n_slots=1), state=tmp_path) as running:
        made = await make(running, items=BEFORE)
        before = await items(running, made)
        first = await post(running, input="And?", conversation=made["id"], instructions="Only now.", stream=stream)
        second = await post(running, input=[msg("user", "So.")], conversation={"id": made["id"]}, stream=stream)
        whole = (await post(running, input=turns)).json
        one, two = (each.events[-1]["response"] if stream else each.json for each in (first, second))
        wire.check_response(two)
        assert (text(one), text(two), two["conversation"]) == ("And?", "So.", {"id": made["id"]})
        n_prompt = whole["usage"]["input_tokens"]
        assert two["usage"]["input_tokens"] == n_prompt
        assert whole["usage"]["input_tokens_details"]["cached_tokens"] == n_prompt - 1
        grown = [*turn(one, listed_message("user", "And?")), *turn(two, listed_message("user", "So."))]
        assert await items(running, made) == [*before, *grown]
        assert seen(await get(running, f"/v1/responses/{two['id']}")) == (200, two)
        again = await get(running, f"/v1/responses/{two['id']}?stream=true")
        assert not stream or frames(again.body) == frames(second.body)


def use_in_responses(url: str) -> None:
    with official_client(url, timeout=PATIENCE) as client:
        made = client.conversations.create(items=[{"role": "user", "content": "Hello"}])
        whole = client.responses.create(model=NAME, input="And?", conversation=made.id)
        with client.responses.stream(model=NAME, input="So.", conversation={"id": made.id}) as stream:
            streamed = stream.get_final_response()
        for response in (whole, streamed):
            assert response.conversation is not None
            assert response.conversation.id == made.id
        listed = client.conversations.items.list(made.id, order="asc").data
        roles = [item.role for item in listed if item.type == "message"]
        assert roles == ["user", "user", "assistant", "user", "assistant"]
        with pytest.raises(openai.NotFoundError) as gone:
            client.responses.create(model=NAME, input="Hi", conversation="conv_x")
        assert (gone.value.code, gone.value.param) == ("not_found", "conversation")


@pytest.mark.slow
async def test_conversation_by_official_client_is_continued(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        await trio.to_thread.run_sync(use_in_responses, running.url)


async def test_response_outside_conversation_names_none(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        for conversation in ({}, {"conversation": None}):
            assert "conversation" not in (await post(running, input="Hi", **conversation)).json


async def test_response_without_input_answers_conversation(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, items=[msg("user", "Hello")])
        response = (await post(running, conversation=made["id"])).json
        assert text(response) == "Hello"
        assert (await items(running, made))[1:] == response["output"]
        empty = await make(running)
        refused = await post(running, conversation=empty["id"])
    assert (refused.status, refused.json["error"]["param"]) == (400, "input")


async def test_conversation_with_previous_response_is_rejected(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running)
        first = (await post(running, input="Hi", conversation=made["id"])).json
        refused = await post(running, input="Hi", conversation=made["id"], previous_response_id=first["id"])
        message = "`conversation` and `previous_response_id` exclude each other: send one of them."
        assert seen(refused) == refusal(400, message, "conversation")
        assert await items(running, made) == turn(first, listed_message("user", "Hi"))


async def test_response_in_unknown_conversation_is_not_found(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        for conversation in ("conv_x", {"id": "conv_x"}):
            refused = await post(running, input="Hi", conversation=conversation)
            assert seen(refused) == no_conversation("conv_x", "conversation")
        refused = await post(running, input="Hi", conversation={})
        assert refused.json["error"]["param"] == "conversation"
        assert running.model.decoded == []


@pytest.mark.slow
async def test_response_chained_to_conversation_does_not_extend_it(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running)
        first = (await post(running, input="Hi", conversation=made["id"])).json
        second = (await post(running, input="And?", previous_response_id=first["id"])).json
        whole = (
            await post(
                running,
                input=[msg("user", "Hi"), msg("assistant", "Hi"), msg("user", "And?")],
            )
        ).json
        assert second["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
        assert "conversation" not in second
        assert await items(running, made) == turn(first, listed_message("user", "Hi"))


@pytest.mark.parametrize("stream", [True, False])
async def test_unstored_response_extends_its_conversation(stream: bool, tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running)
        answer = await post(running, input="Hi", conversation=made["id"], store=False, stream=stream)
        response = answer.events[-1]["response"] if stream else answer.json
        assert (response["store"], response["conversation"]) == (False, {"id": made["id"]})
        assert (await get(running, f"/v1/responses/{response['id']}")).status == 404
        assert await items(running, made) == turn(response, listed_message("user", "Hi"))


@pytest.mark.slow
async def test_concurrent_responses_are_appended_as_they_end(tmp_path: Path) -> None:
    model = PacedModel(lambda message: message * 20, n_slots=2)
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        made = await make(running, items=[msg("user", "Hi")])
        before = await items(running, made)
        model.hold()
        await client.create(input="slow", conversation=made["id"], service_tier="flex")
        await model.wait_begun(1)
        quick = (await post(running, input="q", conversation=made["id"], background=True, max_output_tokens=1)).json
        model.allow(3)
        while (await items(running, made)) == before:
            await trio.sleep(0.01)
            model.allow(1)
        quick = (await get(running, f"/v1/responses/{quick['id']}")).json
        assert await items(running, made) == [*before, *turn(quick, listed_message("user", "q"))]
        model.go()
        slow = (await client.answer()).json
        assert await items(running, made) == [
            *before,
            *turn(quick, listed_message("user", "q")),
            *turn(slow, listed_message("user", "slow")),
        ]
    assert [each["usage"]["input_tokens"] for each in (slow, quick)] == [len("uHiuslowa"), len("uHiuqa")]


@pytest.mark.slow
async def test_conversation_counted_or_compacted_stays_unchanged(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, items=BEFORE)
        before = await items(running, made)
        requests = encode(input="And?", conversation=made["id"])
        counted = (await exchange(running, "POST", "/v1/responses/input_tokens", requests)).json
        compacted = (await exchange(running, "POST", "/v1/responses/compact", requests)).json
        assert await items(running, made) == before
        response = (await post(running, input="And?", conversation=made["id"])).json
    assert counted == {"object": "response.input_tokens", "input_tokens": response["usage"]["input_tokens"]}
    said_by_user = [item["content"][0]["text"] for item in compacted["output"] if item["type"] == "message"]
    assert said_by_user == ["Hello", "And?"]


@pytest.mark.slow
async def test_incomplete_response_extends_conversation_and_failed_does_not(tmp_path: Path) -> None:
    def reply(message: bytes) -> bytes:
        if message == b"fail":
            raise ModelError("the model broke")
        return message

    model = PacedModel(reply, n_slots=1)
    async with served(model, state=tmp_path) as running:
        made = await make(running)
        short = (await post(running, input="Hello", conversation=made["id"], max_output_tokens=2)).json
        assert (short["status"], text(short)) == ("incomplete", "He")
        for store in (True, False):
            failed = await post(running, input="fail", conversation=made["id"], store=store)
            assert failed.status == 500
        model.hold()
        queued = (await post(running, input="Wait", conversation=made["id"], background=True)).json
        assert (queued["status"], queued["conversation"]) == ("queued", {"id": made["id"]})
        model.allow(2)
        await model.wait_begun(3)
        cancelled = (await exchange(running, "POST", f"/v1/responses/{queued['id']}/cancel")).json
        assert cancelled["status"] == "cancelled"
        model.go()
        grown = [*turn(short, listed_message("user", "Hello")), *turn(cancelled, listed_message("user", "Wait"))]
        assert await items(running, made) == grown


@pytest.mark.parametrize("store", [True, False])
async def test_disconnect_adds_input_and_partial_output_to_conversation(store: bool, tmp_path: Path) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, resume_window_seconds=0.0) as running:
        made = await make(running)
        async with await Client.to(running) as client:
            model.hold()
            await client.create(input="Hello", conversation=made["id"], store=store, stream=True)
            response_id, _ = await client.created()
            model.allow(1)
            await client.frame("response.output_text.delta")
        await running.app.wait_idle()
        model.go()
        came, went = await items(running, made)
    part = {"type": "output_text", "text": "H", "annotations": [], "logprobs": []}
    begun = {"type": "message", "status": "incomplete", "role": "assistant", "content": [part]}
    assert (without_id(came), without_id(went)) == (listed_message("user", "Hello"), begun)
    assert went["id"] == f"msg_{response_id.removeprefix('resp_')}00"


@pytest.mark.slow
async def test_background_stream_in_conversation_can_be_resumed(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        made = await make(running)
        model.hold()
        await client.create(input="Hello", conversation=made["id"], background=True, stream=True)
        response_id, _ = await client.created()
        assert await items(running, made) == []
        model.go()
        rest = await get(running, f"/v1/responses/{response_id}?stream=true&starting_after=1")
        response = (await get(running, f"/v1/responses/{response_id}")).json
        assert frames(rest.body) == frames((await get(running, f"/v1/responses/{response_id}?stream=true")).body)[2:]
        assert await items(running, made) == turn(response, listed_message("user", "Hello"))


@pytest.mark.slow
async def test_conversation_deleted_during_response_does_not_fail_it(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        for store in (True, False):
            made = await make(running)
            async with await Client.to(running) as client:
                model.hold()
                await client.create(input="Hello", conversation=made["id"], store=store)
                await model.wait_begun(1)
                assert (await delete(running, path(made))).status == 200
                model.go()
                answer = await client.answer()
            assert (answer.json["status"], answer.json["store"], answer.text) == ("completed", store, "Hello")
            assert answer.json["conversation"] == {"id": made["id"]}
            await check_gone(running, made["id"])


async def test_response_cut_by_crash_is_not_in_conversation(tmp_path: Path) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, shutdown_timeout_seconds=0.0) as running:
        made = await make(running, items=[msg("user", "Hi")])
        before = await items(running, made)
        model.hold()
        await post(running, input="Hello", conversation=made["id"], background=True)
        await model.wait_begun(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.app.wait_idle)
            signal.raise_signal(signal.SIGTERM)
    async with served(state=tmp_path) as running:
        assert await items(running, made) == before


@pytest.mark.slow
async def test_reference_in_conversation_is_stored_resolved(tmp_path: Path) -> None:
    def reference(item: dict[str, Any]) -> dict[str, Any]:
        return {"type": "item_reference", "id": item["id"]}

    async with served(state=tmp_path) as running:
        (answered,) = (await post(running, input="Hello")).json["output"]
        for referring in ({"id": answered["id"]}, reference(answered)):
            made = await make(running, items=[referring])
            assert await items(running, made) == [answered]
        await add(running, made, msg("user", "Hi"))
        added = (await items(running, made))[1]
        response = (await post(running, input=[reference(added)], conversation=made["id"])).json
        assert (text(response), response["usage"]["input_tokens"]) == ("Hi", len("aHellouHiuHia"))
        # An id names one item: the repeated item is at the end.
        assert await items(running, made) == [answered, added, *response["output"]]
        for rest in ("", f"/{made['id']}/items"):
            refused = await exchange(running, "POST", ALL + rest, encode(items=[reference({"id": "msg_x"})]))
            assert seen(refused) == refusal(400, "Item 'msg_x' was not found: send the item itself.", "items[0].id")


class FullForItems(Store):
    class Full(Conversations):
        def add(self, conversation_id: str, items: Sequence[StoredItem], now: float) -> None:
            raise StoreError("the disk is full")

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.conversations = self.Full(self._database, self._usage, self.deletions)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("kind", "store"), [(FullAtOnce, True), (FullLater, True), (FullForItems, False)])
async def test_full_disk_during_response_drops_its_conversation(
    kind: type[Store], store: bool, stream: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(state=tmp_path, kind=kind) as running:
        made = await make(running, items=[msg("user", "Hi")])
        before = await items(running, made)
        answer = await post(running, input="Hello", conversation=made["id"], store=store, stream=stream)
        response = answer.events[-1]["response"] if stream else answer.json
        assert (response["status"], response["store"], answer.text) == ("completed", False, "Hello")
        assert "conversation" not in response
        assert await items(running, made) == before
    assert [record.getMessage() for record in caplog.records if record.name == "responsed.generation"] == [
        f"{response['id']} is not stored: the disk is full"
    ]


async def test_full_disk_rejects_conversation_items_as_unavailable(tmp_path: Path) -> None:
    async with served(state=tmp_path, kind=FullForItems) as running:
        made = await make(running)
        refused = await add(running, made, msg("user", "Hi"))
    message = "The store cannot be read or written now: try again later."
    error = {"message": message, "type": "server_error", "param": None, "code": "unavailable"}
    assert (*seen(refused), refused.headers["retry-after"]) == (503, {"error": error}, "1")
