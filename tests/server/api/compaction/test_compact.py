"""`POST /v1/responses/compact` over the socket, by the official client, and with a client that disconnects."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from openai.types.responses import CompactedResponse, Response

from engine.backends.scripted import ScriptedModel
from engine.job import Lane
from server.prompt import compaction
from server.prompt.items import summary
from server.stream import decode_summary, encode_summary
from tests.server.api.stored.test_references import reference
from tests.server.api.stored.test_stored_responses import invalid, msg, not_found, seen
from tests.support import wire
from tests.support.helpers import (
    NAME,
    Answer,
    Client,
    PacedModel,
    Running,
    encode,
    exchange,
    get,
    official_client,
    post,
    served,
    text,
)

ASKED = compaction.SUMMARY_PROMPT.encode()
TALK = [
    msg("developer", "Be kind."),
    msg("user", "Hello"),
    msg("assistant", "Hi."),
    {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "a", "output": "21 C"},
    msg("user", "Go on"),
]


def summarizing(message: bytes) -> bytes:
    return b"They greeted." if message.endswith(ASKED) else message


async def compact(running: Running, **body: Any) -> Answer:
    return await exchange(running, "POST", "/v1/responses/compact", encode(**body))


def checked(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = answer.json
    assert answer.status == 200, body
    wire.check_against("CompactResource", body, "compaction")
    return body


async def test_compact_returns_user_messages_and_summary() -> None:
    async with served(ScriptedModel(summarizing)) as running:
        body = checked(await compact(running, input=TALK, instructions="I"))
        whole = await post(running, input=[*TALK, msg("user", compaction.SUMMARY_PROMPT)], instructions="I")
        stem = body["id"].removeprefix("resp_")
        assert body == {
            "id": body["id"],
            "object": "response.compaction",
            "created_at": body["created_at"],
            "output": [
                {
                    "type": "message",
                    "id": f"msg_{stem}{n:02}",
                    "content": [{"type": "input_text", "text": words}],
                    "status": "completed",
                    "role": "user",
                }
                for n, words in enumerate(("Hello", "Go on"))
            ]
            + [
                {
                    "type": "compaction",
                    "id": f"cmp_{stem}02",
                    "encrypted_content": encode_summary("They greeted."),
                }
            ],
            "usage": {**body["usage"], "input_tokens": whole.json["usage"]["input_tokens"], "output_tokens": 14},
        }


@pytest.mark.slow
async def test_compact_output_is_accepted_as_input(tmp_path: Path) -> None:
    messages = [
        *map(msg, ["user"] * 3, ["Hello", "Go on", summary.HEADING + "They greeted."]),
        msg("user", "And?"),
    ]
    async with served(ScriptedModel(summarizing), state=tmp_path) as running:
        output = checked(await compact(running, input=TALK))["output"]
        short = (await post(running, input=[*output, msg("user", "And?")])).json
        expected = (await post(running, input=messages)).json
        assert (text(short), short["usage"]["input_tokens"]) == ("And?", expected["usage"]["input_tokens"])
        # Store the output, continue from it, and compact it again.
        again = checked(await compact(running, previous_response_id=short["id"], input="So."))["output"]
        assert [item["content"][0]["text"] for item in again[:-1]] == ["Hello", "Go on", "And?", "So."]
        listed = (await get(running, f"/v1/responses/{short['id']}/input_items?order=asc")).json["data"]
        assert listed[:3] == output


@pytest.mark.slow
async def test_compact_of_stored_response_includes_it(tmp_path: Path) -> None:
    async with served(ScriptedModel(summarizing, n_slots=1), state=tmp_path) as running:
        first = (await post(running, input=TALK)).json
        whole = [*TALK, msg("assistant", "Go on")]
        expected = checked(await compact(running, input=whole))["usage"]["input_tokens"]
        for settings in (
            {"previous_response_id": first["id"]},
            {"previous_response_id": first["id"], "input": []},
            {"input": [*TALK, reference(first["output"][0]["id"])]},
        ):
            body = checked(await compact(running, **settings))
            assert body["usage"]["input_tokens"] == expected
        assert seen(await get(running, f"/v1/responses/{body['id']}")) == not_found(body["id"])


async def test_compact_of_conversation_leaves_it_unchanged(tmp_path: Path) -> None:
    async with served(ScriptedModel(summarizing), state=tmp_path) as running:
        made = (await exchange(running, "POST", "/v1/conversations", json.dumps({"items": TALK}).encode())).json
        items = f"/v1/conversations/{made['id']}/items"
        before = (await get(running, items)).json
        body = checked(await compact(running, conversation=made["id"]))
        assert [item["content"][0]["text"] for item in body["output"][:-1]] == ["Hello", "Go on"]
        assert (await get(running, items)).json == before


async def test_compact_ignores_sampling_of_request() -> None:
    async with served(ScriptedModel(summarizing)) as running:
        for settings in (
            {},
            {"max_output_tokens": 1, "temperature": 2, "stream": True, "background": True, "stop": "e"},
        ):
            output = checked(await compact(running, input=TALK, **settings))["output"]
            assert decode_summary(output[-1]["encrypted_content"]) == "They greeted."


async def test_compact_has_the_lane_of_its_request_and_names_skipped_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    async with served(ScriptedModel(summarizing)) as running:
        checked(await compact(running, input=TALK, service_tier="flex", newest=1))
    (summary,) = [record.summary for record in caplog.records if hasattr(record, "summary")]
    assert (summary.lane, summary.origin.skipped) == (Lane.BATCH, ("newest",))


async def test_compact_of_too_long_conversation_summarizes_parts() -> None:
    words = [f"{n:02}" * 50 for n in range(16)]
    talk = [item for each in words for item in (msg("user", each), msg("assistant", "Yes."))]
    parts = [6, 6, 4]
    """The summary has a quarter of the 1,500 tokens; each turn has 106 tokens and the request for a summary 418."""
    async with served(ScriptedModel(lambda message: b"Summary.", n_ctx=1500, n_slots=1)) as running:
        body = checked(await compact(running, input=talk))
        read = bytes(token for chunk in running.model.decoded for token in chunk.tokens if token < 256).decode()
    assert all(each in read for each in words)
    assert read.count(compaction.SUMMARY_PROMPT) == len(parts)
    assert [item["content"][0]["text"] for item in body["output"][:-1]] == words[-8:]
    assert decode_summary(body["output"][-1]["encrypted_content"]) == "Summary."
    spent = body["usage"]
    assert spent["input_tokens"] == 16 * 106 + 2 * len(f"<{summary.HEADING}Summary.") + 3 * len(
        f"<{compaction.SUMMARY_PROMPT}<"
    )
    assert (spent["output_tokens"], spent["total_tokens"]) == (3 * 9, spent["input_tokens"] + 3 * 9)


async def test_compact_with_too_long_turn_is_rejected() -> None:
    async with served(ScriptedModel(n_ctx=1000)) as running:
        refused = await compact(running, input="x" * 500)
        assert running.model.decoded == []
    n, limit = 500 + len(ASKED) + 3, 750
    message = (
        f"A turn is too long to be summarized: its prompt has {n} tokens; the limit is {limit}. "
        "Shorten it, or start the server with a larger --context."
    )
    assert seen(refused) == invalid(message, "input", "context_length_exceeded")


async def test_compact_without_summary_is_an_error() -> None:
    async with served(ScriptedModel(lambda message: b" ")) as running:
        failed = await compact(running, input=TALK)
    message = "The model wrote no summary; the conversation was not compacted."
    error = {"message": message, "type": "server_error", "param": None, "code": "server_error"}
    assert seen(failed) == (500, {"error": error})


WRONG: list[dict[str, Any]] = [
    {"input": "Hi", "model": "gpt"},
    {"input": []},
    {},
    {"input": "Hi", "previous_response_id": "resp_x"},
    {"input": [reference("msg_x")]},
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
]


@pytest.mark.parametrize("body", WRONG, ids=str)
async def test_compact_rejects_as_responses_does(body: dict[str, Any], tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        refused = seen(await post(running, **body))
        assert refused[0] in (400, 404)
        assert seen(await compact(running, **body)) == refused


async def test_compact_ends_at_disconnect() -> None:
    model = PacedModel(lambda message: b"a" * 500 if message.endswith(ASKED) else message, n_slots=1)
    async with served(model) as running:
        async with await Client.to(running) as client:
            model.hold()
            await client.request("POST", "/v1/responses/compact", encode(input="Hi"))
            model.allow(5)
            await model.wait_begun(6)
        await running.app.wait_idle()
        model.go()
        assert (await post(running, input="b")).text == "b"  # the only slot is free again
    assert sum(chunk.tokens == (ord("a"),) for chunk in model.decoded) < 10


async def test_compact_during_shutdown_is_unavailable(tmp_path: Path) -> None:
    model = PacedModel(summarizing)
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        model.hold()
        await client.request("POST", "/v1/responses/compact", encode(input="Hi"))
        await model.wait_begun(1)
        running.app.stop()
        model.go()
        failed = await client.answer()
    error = {
        "message": "The server is shutting down; try again later.",
        "type": "server_error",
        "param": None,
        "code": "unavailable",
    }
    assert seen(failed) == (503, {"error": error})


def compacted_and_gone_on(url: str) -> tuple[CompactedResponse, Response]:
    with official_client(url) as client:
        talk: Any = TALK
        short = client.responses.compact(model=NAME, input=talk, instructions="I")
        items: Any = [*short.output, msg("user", "And?")]
        return short, client.responses.create(model=NAME, input=items)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # its types have no users' messages in an output
async def test_compact_by_official_client_can_be_continued() -> None:
    messages = [
        *map(msg, ["user"] * 3, ["Hello", "Go on", summary.HEADING + "They greeted."]),
        msg("user", "And?"),
    ]
    async with served(ScriptedModel(summarizing)) as running:
        short, response = await trio.to_thread.run_sync(compacted_and_gone_on, running.url)
        expected = (await post(running, input=messages)).json["usage"]["input_tokens"]
    assert (short.object, [item.type for item in short.output]) == (
        "response.compaction",
        ["message", "message", "compaction"],
    )
    assert response.output_text == "And?"
    assert response.usage is not None
    assert response.usage.input_tokens == expected
