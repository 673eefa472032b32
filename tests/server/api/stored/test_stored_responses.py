"""Stored responses: retrieved, continued, listed, deleted; and answers despite a full disk."""

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from server.protocol.response import Response
from server.store.conversations import StoredItem
from server.store.responses import Store, Stored
from tests.support import wire
from tests.support.failing_stores import FullAtOnce, FullLater
from tests.support.helpers import (
    PATIENCE,
    Answer,
    Client,
    PacedModel,
    Running,
    delete,
    exchange,
    frames,
    get,
    open_store,
    post,
    served,
    text,
)


def path(response: dict[str, Any], rest: str = "") -> str:
    return f"/v1/responses/{response['id']}{rest}"


def not_found(response_id: str) -> tuple[int, Any]:
    message = f"There is no response {response_id!r} here."
    return 404, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "not_found"}}


def invalid(message: str, param: str | None, code: str | None = None) -> tuple[int, Any]:
    return 400, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def seen(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.json


@pytest.mark.slow
async def test_response_is_stored_by_default(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        for settings, stored in (
            ({}, True),
            ({"store": True}, True),
            ({"store": None}, True),
            ({"store": False}, False),
        ):
            for stream in (False, True):
                answer = await post(running, input="Hi", stream=stream, **settings)
                response = answer.events[-1]["response"] if stream else answer.json
                assert response["store"] is stored
                found = seen(await get(running, path(response)))
                assert found == ((200, response) if stored else not_found(response["id"]))


async def test_response_without_store_reports_it() -> None:
    async with served() as running:
        response = (await post(running, input="Hi", store=True)).json
        assert (response["store"], text(response)) == (False, "Hi")
        for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            assert seen(await exchange(running, method, path(response, rest))) == not_found(response["id"])
        refused = await post(running, input="Hi", previous_response_id=response["id"])
    message = "This server stores no responses: send the whole conversation as `input`, or start it with --store PATH."
    assert seen(refused) == invalid(message, "previous_response_id", "previous_response_not_found")


async def test_response_survives_restart(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        whole = await post(running, input="Hi")
        wire.check_response(whole.json)
    async with served(state=tmp_path) as running:
        assert (await get(running, path(whole.json))).body == whole.body


# Continue from a stored response


def msg(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


FIRST = [msg("developer", "Be kind."), msg("user", "Hello")]
PAST = [*FIRST, msg("assistant", "Hello")]


async def chained(running: Running, **body: Any) -> dict[str, Any]:
    """Create three turns, the last with `body`."""
    first = (await post(running, input=FIRST, instructions="Only now.")).json
    second = (await post(running, input="And?", previous_response_id=first["id"])).json
    third: dict[str, Any] = (await post(running, previous_response_id=second["id"], **body)).json
    assert (second["previous_response_id"], third["previous_response_id"]) == (first["id"], second["id"])
    return third


@pytest.mark.slow
async def test_chain_renders_conversation_without_old_instructions(tmp_path: Path) -> None:
    """The whole conversation, sent afterwards as input, finds all its tokens in the KV cache."""
    turns = [*PAST, msg("user", "And?"), msg("assistant", "And?"), msg("user", "So.")]
    async with served(ScriptedModel(n_slots=1), state=tmp_path) as running:
        for instructions in (None, "Be brief."):
            last = await chained(running, input="So.", instructions=instructions)
            whole = (await post(running, input=turns, instructions=instructions)).json
            n_prompt = whole["usage"]["input_tokens"]
            assert (last["usage"]["input_tokens"], text(last)) == (n_prompt, "So.")
            assert whole["usage"]["input_tokens_details"]["cached_tokens"] == n_prompt - 1


NOTHINGS: list[dict[str, Any]] = [{}, {"input": None}, {"input": []}, {"input": ""}]


@pytest.mark.slow
async def test_chain_without_input_is_continued(tmp_path: Path) -> None:
    async with served(ScriptedModel(n_slots=1), state=tmp_path) as running:
        first = (await post(running, input=FIRST)).json
        whole = (await post(running, input=PAST, instructions="Go on.")).json
        for nothing in NOTHINGS:
            fields: dict[str, Any] = {"previous_response_id": first["id"], "instructions": "Go on.", **nothing}
            again = (await post(running, **fields)).json
            assert again["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
            listed = (await get(running, path(again, "/input_items"))).json["data"]
            assert [item["role"] for item in listed] == ["assistant", "user", "developer"]


@pytest.mark.slow
async def test_chain_with_unknown_item_is_continued(tmp_path: Path) -> None:
    """An item whose role is null has no role, so it is no message."""
    async with served(state=tmp_path) as running:
        whole = (await post(running, input=[*PAST[1:], msg("user", "And?")])).json
        for unknown in ({"role": None}, {"role": None, "content": 5}, {"role": None, "type": None, "content": [5]}):
            first = (await post(running, input=[msg("user", "Hello"), unknown])).json
            listed = (await get(running, path(first, "/input_items"))).json["data"]
            assert [item["type"] for item in listed] == ["message"]
            second = (await post(running, input="And?", previous_response_id=first["id"])).json
            assert second["usage"]["input_tokens"] == whole["usage"]["input_tokens"]


@pytest.mark.slow
async def test_chain_after_restart_is_continued(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        first = (await post(running, input="Hello", stream=True)).events[-1]["response"]
    async with served(state=tmp_path) as running:
        second = (await post(running, input="And?", previous_response_id=first["id"])).json
        whole = (await post(running, input=[*PAST[1:], msg("user", "And?")])).json
    assert second["usage"]["input_tokens"] == whole["usage"]["input_tokens"]


@pytest.mark.slow
async def test_chain_with_missing_link_is_rejected(tmp_path: Path) -> None:
    def gone(response_id: str) -> tuple[int, Any]:
        message = f"Response {response_id!r} was not found: send the whole conversation as `input`."
        return invalid(message, "previous_response_id", "previous_response_not_found")

    async with served(state=tmp_path) as running:
        assert seen(await post(running, input="Hi", previous_response_id="resp_x")) == gone("resp_x")
        first = (await post(running, input="Hi")).json
        second = (await post(running, input="Hi", previous_response_id=first["id"])).json
        await delete(running, path(first))
        assert seen(await post(running, input="Hi", previous_response_id=second["id"])) == gone(first["id"])
        unstored = (await post(running, input="Hi", store=False)).json
        assert seen(await post(running, input="Hi", previous_response_id=unstored["id"])) == gone(unstored["id"])


async def test_chain_to_response_in_progress_is_rejected(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        model.hold()
        first = (await post(running, input="Hi", background=True)).json
        refused = await post(running, input="And?", previous_response_id=first["id"])
        model.go()
    assert seen(refused) == invalid(
        f"Response {first['id']!r} is still in progress: wait until it has ended.", "previous_response_id"
    )


# Input items


CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "4"}
SENT: list[dict[str, Any]] = [
    {"type": "message", "id": "msg_mine", "role": "user", "content": [{"type": "input_text", "text": "2+2"}]},
    {"role": "developer", "content": "Hm."},
    {"role": "assistant", "content": "Wait.", "id": None},
    CALL,
    OUTPUT,
    {"type": "no_such_thing", "x": [1, {"y": None}]},
    {"neither": "type nor role"},
    {"type": "reasoning", "id": 7, "summary": []},
]


def listed(stem: str) -> list[dict[str, Any]]:
    """Return SENT as the store lists it."""
    hm = [{"type": "input_text", "text": "Hm."}]
    wait = [{"type": "output_text", "text": "Wait.", "annotations": []}]
    message = {"type": "message", "status": "completed"}
    return [
        {**message, **SENT[0]},
        {**message, "id": f"msg_{stem}i01", "role": "developer", "content": hm},
        {**message, "id": f"msg_{stem}i02", "role": "assistant", "content": wait},
        {"id": f"fc_{stem}i03", "status": "completed", **CALL},
        {"id": f"fco_{stem}i04", "status": "completed", **OUTPUT},
        {"id": f"item_{stem}i05", **SENT[5]},
        {"type": "reasoning", "id": f"rs_{stem}i07", "summary": []},
    ]


PAGES: list[tuple[str, Sequence[int], bool]] = [
    ("", [6, 5, 4, 3, 2, 1, 0], False),
    ("?order=asc", [0, 1, 2, 3, 4, 5, 6], False),
    ("?limit=2", [6, 5], True),
    ("?limit=2&after=fc_{}i03", [2, 1], True),
    ("?limit=2&after=msg_{}i02&order=asc&include[]=x", [3, 4], True),
    ("?limit=7", [6, 5, 4, 3, 2, 1, 0], False),
    ("?after=msg_mine", [], False),
]


@pytest.mark.slow
async def test_input_items_are_listed_in_pages(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        response = (await post(running, input=SENT)).json
        stem = response["id"].removeprefix("resp_")
        whole = listed(stem)
        for query, indexes, more in PAGES:
            found = await get(running, path(response, f"/input_items{query.format(stem)}"))
            data = [whole[index] for index in indexes]
            first, last = (data[0]["id"], data[-1]["id"]) if data else ("", "")
            expected = {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}
            assert (query, *seen(found)) == (query, 200, expected)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["previous_response_id", "conversation"])
async def test_input_items_include_earlier_turns(by: str, tmp_path: Path) -> None:
    """OpenAI lists the earlier turns too, the newest item first (openai/openai-openapi#491)."""
    async with served(state=tmp_path) as running:
        made = (await exchange(running, "POST", "/v1/conversations", b"{}")).json
        name = {"conversation": made["id"]} if by == "conversation" else {}
        first = (await post(running, input="Hello", **name)).json
        second = (await post(running, input="And?", **name or {"previous_response_id": first["id"]})).json
        await post(running, input="Behind it.", **name)
        listed = (await get(running, path(second, "/input_items"))).json
        texts = [item["content"][0]["text"] for item in listed["data"]]
        assert texts == ["And?", first["output"][0]["content"][0]["text"], "Hello"]
        after = (await get(running, path(second, f"/input_items?order=asc&limit=1&after={listed['last_id']}"))).json
        assert (after["data"], after["has_more"]) == ([listed["data"][1]], True)
        item = listed["data"][0]
    stem = second["id"].removeprefix("resp_")
    content = [{"type": "input_text", "text": "And?"}]
    message = {"id": f"msg_{stem}i00", "type": "message", "status": "completed", "role": "user", "content": content}
    assert item == message


WRONG = [
    ("/input_items?limit=0", "`limit` must be at least 1.", "limit"),
    ("/input_items?limit=101", "`limit` must be at most 100.", "limit"),
    ("/input_items?limit=x", "`limit` must be a whole number, not a string.", "limit"),
    ("/input_items?order=up", "Invalid enum value 'up' in `order`.", "order"),
    ("/input_items?after=x", "There is no item 'x' in this list.", "after"),
    ("?stream=perhaps", "`stream` must be a boolean, not a string.", "stream"),
    ("?stream=true&starting_after=-2", "`starting_after` must be at least -1.", "starting_after"),
]


async def test_invalid_query_is_rejected_by_name(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        response = (await post(running, input="Hello")).json
        for query, message, param in WRONG:
            assert (query, *seen(await get(running, path(response, query)))) == (query, *invalid(message, param))


# End of a stored response


@pytest.mark.slow
async def test_deleted_response_is_not_found(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        response = (await post(running, input="Hello")).json
        deleted = {"id": response["id"], "object": "response", "deleted": True}
        assert seen(await delete(running, path(response))) == (200, deleted)
        for method, rest in (("GET", ""), ("GET", "?stream=true"), ("GET", "/input_items"), ("POST", "/cancel")):
            assert seen(await exchange(running, method, path(response, rest))) == not_found(response["id"])
        assert seen(await delete(running, path(response))) == not_found(response["id"])


async def test_deleted_response_in_progress_is_cancelled(tmp_path: Path) -> None:
    model = PacedModel(lambda message: message * 1000, n_slots=1)
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="a", stream=True)
        response_id, begun = await client.created()
        model.allow(2)
        begun += await client.frame("response.output_text.delta")
        assert (await delete(running, f"/v1/responses/{response_id}")).status == 200
        events = wire.events(begun + await client.rest_of_stream())
        assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.incomplete", "cancelled")
        assert seen(await get(running, f"/v1/responses/{response_id}")) == not_found(response_id)
        model.go()
        assert (await post(running, input="b", max_output_tokens=1)).text == "b"  # the slot is free again


@pytest.mark.slow
async def test_response_ended_by_shutdown_is_stored_as_failed(tmp_path: Path) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, shutdown_timeout_seconds=0.0) as running:
        model.hold()
        made = (await post(running, input="Hi", background=True)).json
        waits = (await post(running, input="Hi", background=True)).json
        await model.wait_begun(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.app.wait_idle)
            signal.raise_signal(signal.SIGTERM)
    async with served(state=tmp_path) as running:
        for response in (made, waits):
            found = (await get(running, path(response))).json
            wire.check_response(found)
            assert found["error"] == {
                "code": "server_error",
                "message": "The server is shutting down; try again later.",
            }
            assert (await get(running, path(response, "?stream=true"))).events[-1]["response"] == found


async def test_response_cut_by_crash_has_failed(tmp_path: Path) -> None:
    kinds = {"queued": "resp_a", "in_progress": "resp_b"}
    store = open_store(tmp_path / "responses.db")
    for status, response_id in kinds.items():
        first = msgspec.json.encode(
            Response(id=response_id, created_at=7, status=status, model="m", store=True, temperature=1, top_p=1)  # type: ignore[arg-type] # every value is one of them
        )
        store.begin(Stored(id=response_id, created_at=7, status=status, first=first, response=first, items=b"[]"), 1e9)
    store.close()
    async with served(state=tmp_path) as running:
        for response_id in kinds.values():
            found = (await get(running, f"/v1/responses/{response_id}")).json
            wire.check_response(found)
            message = "The server stopped while this response was in progress; send the request again."
            assert (found["status"], found["error"]) == ("failed", {"code": "server_error", "message": message})
            again = await get(running, f"/v1/responses/{response_id}?stream=true")
            assert again.events[-1]["response"] == found


# Disks


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", [FullAtOnce, FullLater])
async def test_full_disk_does_not_lose_answer(
    kind: type[Store], stream: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(state=tmp_path, kind=kind) as running:
        answer = await post(running, input="Hello", stream=stream)
        response = answer.events[-1]["response"] if stream else answer.json
        assert (response["status"], response["store"], answer.text) == ("completed", False, "Hello")
        assert seen(await get(running, path(response))) == not_found(response["id"])
    assert [record.getMessage() for record in caplog.records if record.name == "responsed.generation"] == [
        f"{response['id']} is not stored: the disk is full"
    ]


async def test_background_response_on_full_disk_is_not_begun(tmp_path: Path) -> None:
    async with served(state=tmp_path, kind=FullAtOnce) as running:
        refused = await post(running, input="Hello", background=True)
        assert running.model.decoded == []
    message = "A background response must be stored, but the store cannot be written now: try again later."
    error = {"message": message, "type": "server_error", "param": None, "code": "unavailable"}
    assert (*seen(refused), refused.headers["retry-after"]) == (503, {"error": error}, "1")


@pytest.mark.slow
async def test_background_response_with_unstored_end_can_be_retrieved(tmp_path: Path) -> None:
    async with served(state=tmp_path, kind=FullLater) as running:
        begun = (await post(running, input="Hello", background=True)).json
        received = await get(running, path(begun, "?stream=true"))
        response = received.events[-1]["response"]
        assert (response["status"], response["store"], received.text) == ("completed", False, "Hello")
        assert (await get(running, path(begun))).json == response
        assert (await exchange(running, "POST", path(begun, "/cancel"))).json == response
        assert frames((await get(running, path(begun, "?stream=true"))).body) == frames(received.body)
        assert (await delete(running, path(begun))).json["deleted"]
        assert seen(await get(running, path(begun))) == not_found(begun["id"])


class SlowStore(Store):
    """Store that writes when the test allows it."""

    may_begin = threading.Event()
    may_finish = threading.Event()

    def begin(self, stored: Stored, now: float) -> None:
        assert self.may_begin.wait(PATIENCE)
        super().begin(stored, now)

    def finish(
        self, response_id: str, status: str, response: bytes, cues: bytes, made: Sequence[StoredItem], now: float
    ) -> None:
        assert self.may_finish.wait(PATIENCE)
        super().finish(response_id, status, response, cues, made, now)


@pytest.mark.slow
async def test_stream_waits_for_store_at_its_end_only(tmp_path: Path) -> None:
    class Slow(SlowStore):
        may_begin = threading.Event()
        may_finish = threading.Event()

    async with served(state=tmp_path, kind=Slow) as running, await Client.to(running) as client:
        await client.create(input="Hello", stream=True)
        await client.head()
        received = await client.frame("response.output_text.delta")
        while b'"delta":"o"' not in received:
            received += await client.chunk()
        response_id = msgspec.json.decode(wire.parse_sse(received)[-1].data)["item_id"]
        path_ = f"/v1/responses/{response_id.removesuffix('00').replace('msg_', 'resp_')}"
        Slow.may_begin.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await get(running, path_)).json["status"] == "in_progress"
        Slow.may_finish.set()
        last = await client.frame("response.completed")
        assert (await get(running, path_)).json == msgspec.json.decode(wire.parse_sse(last)[-1].data)["response"]


async def test_stored_stream_equals_sent_stream(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        streamed = await post(running, input="Grüße", stream=True)
        again = await get(running, path(streamed.events[-1]["response"], "?stream=true"))
    assert frames(again.body) == frames(streamed.body)
    assert again.headers["content-type"] == streamed.headers["content-type"]


async def test_background_response_without_opened_store_is_unavailable() -> None:
    """The server runs without `--store off`, so the request is not invalid."""
    async with served(store=None) as running:
        refused = await post(running, input="Hello", background=True)
        assert (refused.status, refused.json["error"]["code"]) == (503, "unavailable")
        assert (await post(running, input="Hello")).json["store"] is False
