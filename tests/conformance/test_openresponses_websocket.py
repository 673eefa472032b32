"""WebSocket cases of Open Responses' compliance suite, each under its name (openresponses, `compliance-tests.ts`).

The suite of 17 has seven of these; older versions have `websocket-generate-false` too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.upstream.fronts import Served
from tests.support.helpers import NAME, encode, exchange, text
from tests.support.websockets import SocketClient

MISSING = {"type": "function_call_output", "call_id": "call_openresponses_missing", "output": "No call exists."}


def obedient(message: bytes) -> bytes:
    """Reply as the suite's prompts ask."""
    prompt = message.decode()
    if "What is the code word?" in prompt:
        return b"cobalt"
    return prompt.rpartition(": ")[2].encode() if "exactly: " in prompt else b"OK"


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[SocketClient]:
    async with served(ScriptedModel(obedient)) as running, await SocketClient.to(running) as client:
        yield client


def completed(response: dict[str, Any]) -> str:
    assert response["status"] == "completed"
    return text(response)


def code(event: dict[str, Any]) -> tuple[str, int, str | None]:
    return event["type"], event["status"], event["error"]["code"]


async def test_websocket_response(served: Served) -> None:
    async with connected(served) as client:
        message = {"type": "message", "role": "user", "content": "Count from 1 to 3."}
        assert completed(await client.response(input=[message])) == "OK"


async def test_websocket_sequential_responses(served: Served) -> None:
    async with connected(served) as client:
        for word in ("first", "second"):
            assert completed(await client.response(store=False, input=f"Reply with exactly: {word}")) == word


async def test_websocket_continuation(served: Served) -> None:
    async with connected(served) as client:
        first = await client.response(store=False, input="Remember the code word: cobalt. Reply with OK.")
        question = "What is the code word? Reply with only the code word."
        second = await client.response(store=False, previous_response_id=first["id"], input=question)
    assert (completed(second), second["previous_response_id"]) == ("cobalt", first["id"])
    assert second["usage"]["input_tokens"] > first["usage"]["total_tokens"]


async def test_websocket_generate_false(served: Served) -> None:
    async with served(ScriptedModel(obedient)) as running, await SocketClient.to(running) as client:
        warmed = await client.response(store=False, generate=False, input="Prepare to answer with exactly: warmed")
        assert (completed(warmed), warmed["output"], warmed["usage"]["output_tokens"]) == ("", [], 0)
        request = {"previous_response_id": warmed["id"], "input": "Reply with exactly: warmed"}
        generated = await client.response(store=False, **request)
    assert completed(generated) == "warmed"
    if not running.config.upstreams:  # they cannot be warmed by chat completions
        assert generated["usage"]["input_tokens_details"]["cached_tokens"] >= warmed["usage"]["input_tokens"] - 1


async def test_websocket_reconnect_store_false_recovery(served: Served) -> None:
    async with served(ScriptedModel(obedient)) as running:
        async with await SocketClient.to(running) as client:
            first = await client.response(store=False, input="Remember the code word: copper. Reply with OK.")
        async with await SocketClient.to(running) as client:
            await client.create(store=False, previous_response_id=first["id"], input="Reply with exactly: reconnected")
            assert code(await client.event()) == ("error", 400, "previous_response_not_found")
            start = {"type": "message", "role": "user", "content": "Start anew and reply with exactly: recovered"}
            recovered = await client.response(store=False, input=[start])
    assert (completed(first), completed(recovered)) == ("OK", "recovered")


async def test_websocket_compact_new_chain(served: Served) -> None:
    turns = [
        said("user", "input_text", "Remember the compaction code word: slate."),
        said("assistant", "output_text", "OK."),
        said("user", "input_text", "Compress this conversation for later continuation."),
    ]
    async with served(ScriptedModel(obedient)) as running:
        compacted = await exchange(running, "POST", "/v1/responses/compact", encode(model=NAME, input=turns))
        assert compacted.status == 200, compacted.body
        goal = {"type": "message", "role": "user", "content": "Continue from here. Reply with exactly: compacted"}
        async with await SocketClient.to(running) as client:
            response = await client.response(store=False, input=[*compacted.json["output"], goal], tools=[])
    assert (completed(response), response["previous_response_id"]) == ("compacted", None)


def said(role: str, kind: str, content: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": content}]}


async def test_websocket_previous_response_not_found(served: Served) -> None:
    async with connected(served) as client:
        await client.create(store=False, previous_response_id="resp_openresponses_missing", input="This should fail.")
        assert code(await client.event()) == ("error", 400, "previous_response_not_found")


@pytest.mark.parametrize("lane", [None, "main"])
async def test_websocket_failed_continuation_evicts_cache(served: Served, lane: str | None) -> None:
    named = {} if lane is None else {"stream_id": lane}
    async with connected(served) as client:
        first = await client.response(store=False, input="Remember the code word: ember. Reply with OK.", **named)
        await client.create(store=False, previous_response_id=first["id"], input=[MISSING], **named)
        failed = await client.event()
        assert (code(failed), failed.get("stream_id")) == (("error", 400, None), lane)
        assert failed["error"]["param"] == "input[0].call_id"
        await client.create(store=False, previous_response_id=first["id"], input="Reply with exactly: stale", **named)
        assert code(await client.event()) == ("error", 400, "previous_response_not_found")
