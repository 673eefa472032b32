"""Conversations: created, updated, listed and deleted; continued and extended by responses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
import trio
from msgspec.structs import replace
from openai.types.conversations import Conversation, ConversationDeletedResource

from server.generation import Generations
from server.store import Store, TooLarge
from tests.server.store.entries import AMPLE
from tests.support import wire
from tests.support.helpers import (
    PATIENCE,
    Answer,
    Running,
    delete,
    encode,
    exchange,
    get,
    official_client,
    post,
    served,
)

ALL = "/v1/conversations"


def msg(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def listed_message(role: str, content: str) -> dict[str, Any]:
    """Return a message as the list shows it, without its id."""
    if role == "assistant":
        part: dict[str, Any] = {"type": "output_text", "text": content, "annotations": []}
    else:
        part = {"type": "input_text", "text": content}
    return {"type": "message", "status": "completed", "role": role, "content": [part]}


def without_id(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


def seen(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.json


def refusal(status: int, message: str, param: str | None = None, code: str | None = None) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def no_conversation(conversation_id: str, param: str | None = None) -> tuple[int, Any]:
    return refusal(404, f"There is no conversation {conversation_id!r} here.", param, "not_found")


async def make(running: Running, **fields: Any) -> dict[str, Any]:
    answer = await exchange(running, "POST", ALL, encode(**fields))
    wire.check_conversation(answer.json)
    assert (answer.status, set(answer.json)) == (200, {"id", "object", "created_at", "metadata"})
    made: dict[str, Any] = answer.json
    return made


async def add(running: Running, conversation: dict[str, Any], *items: Any) -> Answer:
    return await exchange(running, "POST", f"{path(conversation)}/items", encode(items=items))


async def items(running: Running, conversation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all items, oldest first."""
    answer = await get(running, f"{path(conversation)}/items?order=asc&limit=100")
    wire.check_conversation_items(answer.json)
    data: list[dict[str, Any]] = answer.json["data"]
    return data


def path(conversation: dict[str, Any]) -> str:
    return f"{ALL}/{conversation['id']}"


def use_all_eight(url: str) -> None:
    with official_client(url, timeout=PATIENCE) as client:
        conversations = client.conversations
        empty = conversations.create()
        assert empty == Conversation(id=empty.id, object="conversation", created_at=empty.created_at, metadata={})
        made = conversations.create(items=[{"role": "user", "content": "Hello"}], metadata={"a": "b"})
        assert made.metadata == {"a": "b"}
        assert made.id.startswith("conv_")
        assert conversations.retrieve(made.id) == made
        assert conversations.update(made.id, metadata={"c": "d"}) == made.model_copy(update={"metadata": {"c": "d"}})

        added = conversations.items.create(
            made.id,
            items=[{"role": "assistant", "content": "Hm."}, {"role": "user", "content": "And?", "type": "message"}],
            include=["message.output_text.logprobs"],
        )
        assert [added.first_id, added.last_id] == [item.id for item in added.data]
        everything = list(conversations.items.list(made.id, order="asc", limit=1))  # page by page
        assert everything[1:] == added.data
        assert list(conversations.items.list(made.id)) == everything[::-1]
        first = everything[0]
        assert first.id is not None
        assert conversations.items.retrieve(first.id, conversation_id=made.id, include=[]) == first
        assert conversations.items.delete(first.id, conversation_id=made.id) == conversations.retrieve(made.id)
        assert list(conversations.items.list(made.id, order="asc", after=added.first_id)) == added.data[1:]

        deleted = ConversationDeletedResource(id=made.id, object="conversation.deleted", deleted=True)
        assert conversations.delete(made.id) == deleted
        with pytest.raises(openai.NotFoundError) as gone:
            conversations.retrieve(made.id)
        assert gone.value.code == "not_found"


@pytest.mark.slow
async def test_conversations_by_official_client_support_all_calls(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        await trio.to_thread.run_sync(use_all_eight, running.url)


async def test_conversation_is_created_with_or_without_body(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        for body in (None, b"", b"{}", b'{"items":null,"metadata":null}', b'{"items":[]}'):
            made = (await exchange(running, "POST", ALL, body)).json
            wire.check_conversation(made)
            assert made["metadata"] == {}
            assert seen(await get(running, path(made))) == (200, made)
            listed = (await get(running, f"{path(made)}/items")).json
            wire.check_conversation_items(listed)
            assert listed == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


async def test_conversation_update_replaces_all_metadata(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, metadata={"a": "b"})
        for metadata in ({"c": "d", "e": ""}, {}, {f"{n:064}": "x" * 512 for n in range(16)}, None):
            changed = await exchange(running, "POST", path(made), encode(metadata=metadata))
            wire.check_conversation(changed.json)
            assert seen(changed) == (200, made | {"metadata": metadata or {}})
            assert seen(await get(running, path(made))) == seen(changed)


SENT: list[dict[str, Any]] = [
    {"type": "message", "id": "msg_mine", "role": "user", "content": [{"type": "input_text", "text": "2+2"}]},
    {"role": "developer", "content": "Hm."},
    {"role": "assistant", "content": [{"type": "output_text", "text": "Wait."}], "id": None},
    {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "4"},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "4 it is."}]},
    {"type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "x"},
]
LISTED = [
    {**SENT[0], "status": "completed"},
    listed_message("developer", "Hm."),
    listed_message("assistant", "Wait."),
    {**SENT[3], "status": "completed"},
    {**SENT[4], "status": "completed"},
    {**SENT[5], "summary": []},
    {**SENT[6], "status": "completed"},
]
KINDS = ["msg", "msg", "msg", "fc", "fco", "rs", "item"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_conversation_items_of_each_kind_are_stored_whole(at_once: bool, tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, items=SENT if at_once else [])
        if not at_once:
            added = await add(running, made, *SENT)
            wire.check_conversation_items(added.json)
        data = await items(running, made)
        ids = [item["id"] for item in data]
        assert [without_id(item) for item in data] == [without_id(item) for item in LISTED]
        assert ([id_.split("_")[0] for id_ in ids], ids[0], len(set(ids))) == (KINDS, "msg_mine", len(SENT))
        if not at_once:
            whole = {"object": "list", "data": data, "first_id": ids[0], "last_id": ids[-1], "has_more": False}
            assert seen(added) == (200, whole)
        for item in data:
            assert seen(await get(running, f"{path(made)}/items/{item['id']}")) == (200, item)


PAGES: list[tuple[str, Sequence[int], bool]] = [
    ("", range(24, 4, -1), True),
    ("?order=asc", range(20), True),
    ("?limit=100", range(24, -1, -1), False),
    ("?limit=2&after={3}", [2, 1], True),
    ("?limit=2&after={2}&order=asc&include[]=x&include[]=y", [3, 4], True),
    ("?limit=3&after={21}&order=asc", [22, 23, 24], False),
    ("?after={0}", [], False),
]


@pytest.mark.slow
async def test_conversation_items_are_listed_in_pages(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, items=[msg("user", str(n)) for n in range(20)])
        await add(running, made, *(msg("user", str(n)) for n in range(20, 25)))
        whole = await items(running, made)
        assert [without_id(item) for item in whole] == [listed_message("user", str(n)) for n in range(25)]
        ids = [item["id"] for item in whole]
        for query, indexes, more in PAGES:
            found = await get(running, f"{path(made)}/items{query.format(*ids)}")
            wire.check_conversation_items(found.json)
            data = [whole[index] for index in indexes]
            first, last = (data[0]["id"], data[-1]["id"]) if data else ("", "")
            expected = {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}
            assert (query, *seen(found)) == (query, 200, expected)


@pytest.mark.slow
async def test_conversation_is_deleted_with_its_items(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, items=SENT)
        whole = await items(running, made)
        item = f"{path(made)}/items/{whole[1]['id']}"
        assert seen(await delete(running, item)) == (200, made)
        assert await items(running, made) == [whole[0], *whole[2:]]
        no_item = f"There is no item {whole[1]['id']!r} in conversation {made['id']!r}."
        for method in ("GET", "DELETE"):
            assert seen(await exchange(running, method, item)) == refusal(404, no_item, None, "not_found")
        deleted = {"id": made["id"], "object": "conversation.deleted", "deleted": True}
        assert seen(await delete(running, path(made))) == (200, deleted)
        await check_gone(running, made["id"])


async def check_gone(running: Running, conversation_id: str) -> None:
    requests: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", "", None),
        ("POST", "", {"metadata": {}}),
        ("DELETE", "", None),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [msg("user", "Hi")]}),
        ("GET", "/items/msg_1", None),
        ("DELETE", "/items/msg_1", None),
    ]
    for method, rest, fields in requests:
        body = None if fields is None else encode(**fields)
        answer = await exchange(running, method, f"{ALL}/{conversation_id}{rest}", body)
        assert (method, rest, *seen(answer)) == (method, rest, *no_conversation(conversation_id))


async def test_conversations_without_store_are_rejected() -> None:
    async with served() as running:
        refused = await exchange(running, "POST", ALL, b"{}")
        assert seen(refused) == refusal(400, "This server stores no conversations: start it with --store PATH.")
        await check_gone(running, "conv_x")
        message = "This server stores no conversations: send all items as `input`, or start it with --store PATH."
        refused = await post(running, input="Hi", conversation="conv_x")
        assert seen(refused) == refusal(400, message, "conversation")


@pytest.mark.slow
async def test_conversation_survives_restart(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, items=SENT, metadata={"a": "b"})
        await post(running, input="Hi", conversation=made["id"])
        whole = await items(running, made)
    async with served(state=tmp_path) as running:
        assert seen(await get(running, path(made))) == (200, made)
        assert await items(running, made) == whole
        assert (await post(running, input="And?", conversation=made["id"])).text == "And?"
        assert (await items(running, made))[: len(whole)] == whole


WRONG: dict[str, tuple[str, dict[str, Any], str, str | None]] = {
    "21 items at the beginning": (
        "", {"items": [msg("user", "x")] * 21}, "`items` may have at most 20 entries.", "items",
    ),
    "21 items later": (
        "/{}/items", {"items": [msg("user", "x")] * 21}, "`items` may have at most 20 entries.", "items",
    ),
    "17 keys": (
        "", {"metadata": dict.fromkeys(map(str, range(17)), "")},
        "`metadata` may have at most 16 entries.", "metadata",
    ),
    "a long key": (
        "", {"metadata": {"k" * 65: ""}},
        f"The key '{'k' * 64}...' of `metadata` may have at most 64 characters.", "metadata",
    ),
    "a long value": (
        "/{}", {"metadata": {"k": "v" * 513}}, "`metadata.k` may have at most 512 characters.", "metadata.k",
    ),
    "a number as value": (
        "/{}", {"metadata": {"k": 1}}, "`metadata.k` must be a string, not a whole number.", "metadata.k",
    ),
    "no metadata": ("/{}", {}, "`metadata` is missing: send the new metadata.", "metadata"),
    "no items": ("/{}/items", {}, "`items` is missing or empty: send the items to add.", "items"),
    "no item": ("/{}/items", {"items": []}, "`items` is missing or empty: send the items to add.", "items"),
    "an item that is none": ("", {"items": ["x"]}, "`items[0]` must be an object, not a string.", "items[0]"),
    "an item of no kind": (
        "/{}/items", {"items": [msg("user", "x"), {"x": 1}]}, "`items[1]` has neither `type` nor `role`.", "items[1]",
    ),
    "an unknown role": (
        "/{}/items", {"items": [msg("boss", "x")]},
        "`items[0].role` is 'boss'; it must be one of user, assistant, system, developer.", "items[0].role",
    ),
    "an image": (
        "", {"items": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "`items[0].content[0]` is of type input_image; this model reads text only.", "items[0].content[0]",
    ),
    "one id twice": (
        "/{}/items", {"items": [{**msg("user", "x"), "id": "msg_a"}] * 2},
        "Two of `items` have the same `id`: leave the ids out.", "items",
    ),
}  # fmt: skip


@pytest.mark.slow
async def test_invalid_conversation_request_names_field_and_changes_nothing(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running, items=SENT[:1], metadata={"a": "b"})
        before = await items(running, made)
        for name, (rest, fields, message, param) in WRONG.items():
            answer = await exchange(running, "POST", ALL + rest.format(made["id"]), encode(**fields))
            assert (name, *seen(answer)) == (name, *refusal(400, message, param))
        for query, message, param in (
            ("limit=0", "`limit` must be at least 1.", "limit"),
            ("limit=101", "`limit` must be at most 100.", "limit"),
            ("order=up", "Invalid enum value 'up' in `order`.", "order"),
            ("after=msg_x", "There is no item 'msg_x' in this list.", "after"),
        ):
            answer = await get(running, f"{path(made)}/items?{query}")
            assert (query, *seen(answer)) == (query, *refusal(400, message, param))
        assert (seen(await get(running, path(made))), await items(running, made)) == ((200, made), before)


class SmallStore(Store):
    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.limit(replace(AMPLE, megabytes=0.001))


TOO_LARGE = (
    "The conversation or response would be larger than all of the store may be: delete items, begin a new conversation "
    "or raise --store-megabytes."
)


@pytest.mark.slow
async def test_conversation_larger_than_the_store_is_refused_for_good(tmp_path: Path) -> None:
    """A retry would fail again, so no 503 promises that it may succeed."""
    long = encode(items=[msg("user", "x" * 1_000)])
    async with served(state=tmp_path, kind=SmallStore) as running:
        made = await make(running, items=SENT[:1])
        before = await items(running, made)
        for answer in (
            await exchange(running, "POST", ALL, long),
            await exchange(running, "POST", f"{path(made)}/items", long),
            await exchange(running, "POST", path(made), encode(metadata={str(i): "x" * 500 for i in range(2)})),
        ):
            assert seen(answer) == refusal(413, TOO_LARGE, code="request_too_large")
            assert "retry-after" not in answer.headers
        assert await items(running, made) == before
        assert (await exchange(running, "POST", path(made), encode(metadata={"a": "b"}))).status == 200


@pytest.mark.slow
async def test_stream_whose_entry_is_too_large_ends_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: Any) -> None:
        raise TooLarge("conv_1 has 2 bytes, more than the limit of the whole store; raise --store-megabytes")

    monkeypatch.setattr(Generations, "start", start)
    async with served() as running:
        answer = await post(running, input="Hi", stream=True)
    response = answer.events[-1]["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": "invalid_prompt", "message": TOO_LARGE})
