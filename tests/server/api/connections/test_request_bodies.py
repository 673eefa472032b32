"""Bodies that are too long, too slow, or never arrive."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from tests.server.api.test_app import SLOW, TOO_LARGE, error
from tests.support.helpers import (
    Client,
    encode,
    exchange,
    post,
    request,
    served,
)


@pytest.mark.slow
async def test_too_large_body_still_being_sent_gets_413() -> None:
    async with served(max_body_megabytes=0.001) as running, await Client.to(running) as client:
        too_long = request("POST", "/v1/responses", b" " * 10_000_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, too_long)
            refused = await client.answer()
        assert (refused.status, refused.json) == (
            413,
            error(TOO_LARGE, None, "request_too_large"),
        )
        await client.request("GET", "/health")
        assert (await client.answer()).status == 200


@pytest.mark.slow
async def test_disconnect_during_413_leaves_no_task() -> None:
    async with served(max_body_megabytes=0.001) as running:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(12):
            async with await Client.to(running) as client:
                await client.send(request("POST", "/v1/responses", b" " * 10_000_000)[:100_000])
                assert (await client.head()).status == 413
        await running.app.wait_idle()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.slow
async def test_answer_does_not_wait_for_unneeded_body() -> None:
    """Every request announces a body that it does not send; the client reads the error and disconnects."""
    async with served(body_gap_seconds=0.05) as running:
        for head, status in (
            ("POST /v1/responses", 408),
            ("POST /nope", 404),
            ("PUT /v1/responses", 405),
            ("GET /health", 200),
        ):
            async with await Client.to(running) as client:
                method, path = head.split()
                await client.send(request(method, path, None, "Content-Length: 999") + b"{")
                answer = await client.answer()
            assert (head, answer.status) == (head, status)
            if status == 408:
                assert answer.json == error(SLOW, None, "request_timeout")
        await running.app.wait_idle()


async def test_disconnect_during_upload_leaves_no_task() -> None:
    async with served() as running:
        for stop in (10, 60, 120):
            async with await Client.to(running) as client:
                await client.send(request("POST", "/v1/responses", encode(input="Hi" * 100))[:stop])
                await trio.testing.wait_all_tasks_blocked()
        await running.app.wait_idle()
        assert running.model.decoded == []
        assert (await post(running, input="Hi")).text == "Hi"


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        ("/v1/responses", {"input": [{"role": "user", "content": "x " * 50_000}]}, "input"),
        ("/v1/responses", {"input": "x", "instructions": "x " * 50_000}, "input"),
        (
            "/v1/responses",
            {"input": "x", "tools": [{"type": "function", "name": "f", "description": "x " * 50_000}]},
            "input",
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x " * 50_000}]}, "messages"),
        ("/v1/completions", {"prompt": "x " * 50_000}, "prompt"),
    ],
)
async def test_too_long_prompt_is_rejected_after_its_first_pieces(path: str, fields: dict[str, Any], name: str) -> None:
    async with served(ScriptedModel(n_ctx=20_000)) as running:
        answer = await exchange(running, "POST", path, encode(**fields))
        assert (answer.status, answer.json) == (
            400,
            error(
                "The input has more than 20000 tokens; the model's context has 20000. "
                "Shorten the input, or start the server with a larger --context.",
                name,
                "context_length_exceeded",
            ),
        )
        assert running.model.decoded == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [58, 70_000])
async def test_too_long_prompt_is_rejected_before_evaluation(n: int, stream: bool) -> None:
    async with served(ScriptedModel(n_ctx=60)) as running:
        answer = await post(running, input="x" * n, stream=stream)
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        has = f"{n + 2} tokens; the model's context has 60. "
        if n > 1000:  # so many that the server rejects them without tokenizing
            has = f"{n} bytes, and the model's context has 60 tokens. "
        assert answer.json == error(
            f"The input has {has}Shorten the input, or start the server with a larger --context.",
            "input",
            "context_length_exceeded",
        )
        assert running.model.decoded == []
        almost = await post(running, input="x" * 57, stream=stream)
        assert almost.text == "x"


JSON_ENDPOINTS = (
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/responses/compact",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/conversations",
)


@pytest.mark.parametrize("body", [b"{", b'{"prompt": "x", U"n": 1}', b'"x"', b"[]", b"null", b'{"a":1}x', b"\xff"])
@pytest.mark.parametrize("path", JSON_ENDPOINTS)
async def test_body_that_is_no_json_object_is_refused(path: str, body: bytes, tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        answer = await exchange(running, "POST", path, body)
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
