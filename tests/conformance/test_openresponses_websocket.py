"""WebSocket cases of Open Responses' compliance suite, each under its name (openresponses, `compliance-tests.ts`).

The suite of 17 has seven of these; older versions have `websocket-generate-false` too. The server has its default
flags, and the handshakes have the suite's headers: those of Bun's `WebSocket`, with a content type.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Self, TypeAlias

import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.api.test_reasoning import THINKS
from tests.server.upstream.fronts import Served
from tests.support import wire
from tests.support.helpers import NAME, Running, Server, encode, exchange, text
from tests.support.websockets import SocketClient

Serving: TypeAlias = Callable[[], AbstractAsyncContextManager[Running]]

MISSING = {"type": "function_call_output", "call_id": "call_openresponses_missing", "output": "No call exists."}


def obedient(message: bytes) -> bytes:
    """Reply as the suite's prompts ask."""
    prompt = message.decode()
    if "What is the code word?" in prompt:
        return b"cobalt"
    return prompt.rpartition(": ")[2].encode() if "exactly: " in prompt else b"OK"


class SuiteClient(SocketClient):
    """A client that sends the suite's headers, and accepts Open Responses' names only."""

    @classmethod
    async def to(cls, running: Server, *headers: str) -> Self:
        return await super().to(running, "Authorization: Bearer sk-test", "Content-Type: application/json", *headers)

    async def event(self) -> dict[str, Any]:
        return wire.by_openai_name(await super().event())


@pytest.fixture(params=[False, True], ids=["plain", "thinking"])
def serving(request: pytest.FixtureRequest, served: Served) -> Serving:
    """Serve a model that does as it is told, at once or after a thought."""

    def thoughtful(message: bytes) -> bytes:
        return b"<think>\nHm.\n</think>\n\n" + obedient(message)

    if request.param:
        return partial(served, ScriptedModel(thoughtful), template=THINKS)
    return partial(served, ScriptedModel(obedient))


@asynccontextmanager
async def connected(serving: Serving) -> AsyncIterator[SuiteClient]:
    async with serving() as running, await SuiteClient.to(running) as client:
        yield client


def completed(response: dict[str, Any]) -> str:
    assert response["status"] == "completed"
    return text(response)


def code(event: dict[str, Any]) -> tuple[str, int, str | None]:
    return event["type"], event["status"], event["error"]["code"]


async def test_websocket_response(serving: Serving) -> None:
    async with connected(serving) as client:
        message = {"type": "message", "role": "user", "content": "Count from 1 to 3."}
        assert completed(await client.response(input=[message])) == "OK"


async def test_websocket_sequential_responses(serving: Serving) -> None:
    async with connected(serving) as client:
        for word in ("first", "second"):
            assert completed(await client.response(store=False, input=f"Reply with exactly: {word}")) == word


async def test_websocket_continuation(serving: Serving) -> None:
    async with connected(serving) as client:
        first = await client.response(store=False, input="Remember the code word: cobalt. Reply with OK.")
        question = "What is the code word? Reply with only the code word."
        second = await client.response(store=False, previous_response_id=first["id"], input=question)
    assert (completed(second), second["previous_response_id"]) == ("cobalt", first["id"])
    assert second["usage"]["input_tokens"] > first["usage"]["total_tokens"]


async def test_websocket_generate_false(serving: Serving) -> None:
    async with serving() as running, await SuiteClient.to(running) as client:
        warmed = await client.response(store=False, generate=False, input="Prepare to answer with exactly: warmed")
        assert (completed(warmed), warmed["output"], warmed["usage"]["output_tokens"]) == ("", [], 0)
        request = {"previous_response_id": warmed["id"], "input": "Reply with exactly: warmed"}
        generated = await client.response(store=False, **request)
    assert completed(generated) == "warmed"
    if not running.sends_chat:  # they cannot be warmed by chat completions
        assert generated["usage"]["input_tokens_details"]["cached_tokens"] >= warmed["usage"]["input_tokens"] - 1


async def test_websocket_reconnect_store_false_recovery(serving: Serving) -> None:
    async with serving() as running:
        async with await SuiteClient.to(running) as client:
            first = await client.response(store=False, input="Remember the code word: copper. Reply with OK.")
        async with await SuiteClient.to(running) as client:
            await client.create(store=False, previous_response_id=first["id"], input="Reply with exactly: reconnected")
            assert code(await client.event()) == ("error", 400, "previous_response_not_found")
            start = {"type": "message", "role": "user", "content": "Start anew and reply with exactly: recovered"}
            recovered = await client.response(store=False, input=[start])
    assert (completed(first), completed(recovered)) == ("OK", "recovered")


@pytest.mark.slow
async def test_websocket_compact_new_chain(serving: Serving) -> None:
    turns = [
        said("user", "input_text", "Remember the compaction code word: slate."),
        said("assistant", "output_text", "OK."),
        said("user", "input_text", "Compress this conversation for later continuation."),
    ]
    async with serving() as running:
        compacted = await exchange(running, "POST", "/v1/responses/compact", encode(model=NAME, input=turns))
        assert compacted.status == 200, compacted.body
        goal = {"type": "message", "role": "user", "content": "Continue from here. Reply with exactly: compacted"}
        async with await SuiteClient.to(running) as client:
            response = await client.response(store=False, input=[*compacted.json["output"], goal], tools=[])
    assert (completed(response), response["previous_response_id"]) == ("compacted", None)


def said(role: str, kind: str, content: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": content}]}


async def test_websocket_previous_response_not_found(serving: Serving) -> None:
    async with connected(serving) as client:
        await client.create(store=False, previous_response_id="resp_openresponses_missing", input="This should fail.")
        assert code(await client.event()) == ("error", 400, "previous_response_not_found")


@pytest.mark.parametrize("lane", [None, "main"])
async def test_websocket_failed_continuation_evicts_cache(serving: Serving, lane: str | None) -> None:
    named = {} if lane is None else {"stream_id": lane}
    async with connected(serving) as client:
        first = await client.response(store=False, input="Remember the code word: ember. Reply with OK.", **named)
        await client.create(store=False, previous_response_id=first["id"], input=[MISSING], **named)
        failed = await client.event()
        assert (code(failed), failed.get("stream_id")) == (("error", 400, "invalid_request_error"), lane)
        assert failed["error"]["param"] == "input[0].call_id"
        await client.create(store=False, previous_response_id=first["id"], input="Reply with exactly: stale", **named)
        assert code(await client.event()) == ("error", 400, "previous_response_not_found")
