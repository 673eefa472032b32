"""`item_reference`: an id in place of an item that the server stored."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.backends.scripted import ScriptedModel
from server.prompt.items import references, stored_items
from server.protocol.errors import InvalidRequest
from tests.server.api.stored.test_stored_responses import invalid, msg, path, seen
from tests.support.helpers import PacedModel, Running, delete, get, post, served, text

STEM = "0123456789abcdef0123456789abcdef"


def reference(id_: Any) -> dict[str, Any]:
    return {"type": "item_reference", "id": id_}


def raws(*values: Any) -> list[msgspec.Raw]:
    return [msgspec.Raw(msgspec.json.encode(value)) for value in values]


# Find references in items


def test_reference_with_or_without_type_is_found() -> None:
    given = raws(reference("msg_1"), msg("user", "Hi"), {"id": "fc_1", "type": None}, {"x": 1}, {"type": "y", "id": 7})
    assert references(given, "input") == {0: "msg_1", 2: "fc_1"}


NO_IDS: list[tuple[Any, str]] = [
    ({"type": "item_reference"}, "`input[1]` references no item: `id` is missing."),
    (reference(None), "`input[1]` references no item: `id` is missing."),
    (reference(7), "`input[1].id` must be a string or null, not a whole number."),
]


@pytest.mark.parametrize(("wrong", "message"), NO_IDS)
def test_reference_without_id_is_rejected(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        references(raws(msg("user", "Hi"), wrong), "input")
    assert (caught.value.message, caught.value.param) == (message, "input[1].id")


@pytest.mark.parametrize(
    ("item_id", "response_id"),
    [
        (f"msg_{STEM}00", f"resp_{STEM}"),
        (f"rs_{STEM}i07", f"resp_{STEM}"),
        (f"fc_{STEM}123", f"resp_{STEM}"),
        (f"msg_{STEM}", None),
        (f"msg_{STEM}i", None),
        (f"msg_{STEM.upper()}00", None),
        (f"{STEM}00", None),
        ("msg_mine", None),
        ("", None),
    ],
)
def test_item_id_gives_its_response_id(item_id: str, response_id: str | None) -> None:
    assert stored_items.response_id_of(item_id) == response_id


# Over the socket


async def input_items(running: Running, response: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await get(running, path(response, "/input_items?order=asc"))).json["data"]
    return listed


@pytest.mark.slow
async def test_reference_is_resolved_and_stored_resolved(tmp_path: Path) -> None:
    turns = [
        msg("developer", "Be kind."),
        msg("user", "Hello"),
        msg("assistant", "Hello"),
        msg("user", "And?"),
    ]
    async with served(ScriptedModel(n_slots=1), state=tmp_path) as running:
        whole = (await post(running, input=turns)).json
        first = (await post(running, input=turns[:2])).json
        came = await input_items(running, first)
        (went,) = first["output"]
        referring = [reference(came[0]["id"]), {"id": came[1]["id"]}, reference(went["id"]), turns[3]]
        second = (await post(running, input=referring)).json
        listed = await input_items(running, second)
        assert (text(second), second["usage"]["input_tokens"]) == ("And?", whole["usage"]["input_tokens"])
        assert listed[:3] == [*came, went]
        # The copied item outlives the response that it came from.
        await delete(running, path(first))
        third = (await post(running, input="So.", previous_response_id=second["id"])).json
        last = (await post(running, input=[*turns, msg("assistant", "And?"), msg("user", "So.")])).json
        assert third["usage"]["input_tokens"] == last["usage"]["input_tokens"]
        gone = await post(running, input=[reference(went["id"])])
        assert seen(gone) == invalid(f"Item {went['id']!r} was not found: send the item itself.", "input[0].id")


async def test_reference_after_restart_is_resolved(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        first = (await post(running, input="Hello", stream=True)).events[-1]["response"]
    async with served(state=tmp_path) as running:
        again = await post(running, input=[reference(first["output"][0]["id"]), msg("user", "And?")])
    assert again.text == "And?"


async def test_reference_to_missing_item_is_named(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        first = (await post(running, input="Hello")).json
        unstored = (await post(running, input="Hello", store=False)).json
        stem = first["id"].removeprefix("resp_")
        for item_id in ("msg_mine", f"msg_{STEM}00", f"msg_{stem}01", f"fc_{stem}00", unstored["output"][0]["id"]):
            refused = await post(running, input=[msg("user", "Hi"), reference(item_id)])
            assert seen(refused) == invalid(f"Item {item_id!r} was not found: send the item itself.", "input[1].id")


async def test_reference_to_response_in_progress_is_rejected(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        model.hold()
        first = (await post(running, input="Hi", background=True)).json
        item_id = f"msg_{first['id'].removeprefix('resp_')}i00"
        refused = await post(running, input=[reference(item_id)])
        model.go()
    assert seen(refused) == invalid(f"Item {item_id!r} was not found: send the item itself.", "input[0].id")


async def test_reference_without_store_is_rejected() -> None:
    async with served() as running:
        first = (await post(running, input="Hello")).json
        refused = await post(running, input=[reference(first["output"][0]["id"])])
    message = "This server stores no responses: send the item itself, or start the server with --store PATH."
    assert seen(refused) == invalid(message, "input[0].id")


@pytest.mark.slow
async def test_references_beyond_body_limit_are_rejected(tmp_path: Path) -> None:
    async with served(state=tmp_path, max_body_megabytes=0.001) as running:
        first = (await post(running, input="x" * 400)).json
        item_id = first["output"][0]["id"]
        assert (await post(running, input=[reference(item_id)])).status == 200
        refused = await post(running, input=[reference(item_id)] * 2)
    message = "The items that `input` references are larger than 1000 bytes."
    error = {"message": message, "type": "invalid_request_error", "param": "input[1].id", "code": "request_too_large"}
    assert seen(refused) == (413, {"error": error})
