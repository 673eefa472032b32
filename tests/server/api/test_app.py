"""The whole server on a real socket, with a scripted model."""

import itertools
import json
import logging
import re
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from engine.backends.scripted import Reply, ScriptedModel
from engine.model import FloatArray, ModelError
from server.config.config import Config
from tests.support import wire
from tests.support.helpers import (
    CREATED,
    NAME,
    PATIENCE,
    Answer,
    Client,
    PacedModel,
    encode,
    exchange,
    get,
    post,
    request,
    served,
    types,
    wired,
)

OPENING = ["response.created", "response.in_progress"]
TOO_LARGE = "The body is larger than 1000 bytes; send a smaller one, or start the server with --max-body-megabytes."
SLOW = "No part of the body arrived for 0.05 s; send it without pauses."
MODEL = {
    "id": NAME,
    "created": CREATED,
    "meta": {
        "engine": "scripted",
        "n_ctx": 4096,
        "n_slots": 2,
        "n_vocab": 261,
        "n_ctx_train": 0,
        "n_params": 0,
        "size": 0,
        "quantization": "",
        "capabilities": ["responses", "chat", "tools", "structured_output", "logprobs"],
    },
    "object": "model",
    "owned_by": "responsed",
}


def error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def server_error(message: str, code: str = "server_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


def no_model(name: str) -> dict[str, Any]:
    message = f"There is no model {name!r}; this server has 'scripted' (--alias gives it more names)."
    return error(message, "model", "model_not_found")


# Answers


async def test_response_streamed_or_not_is_equal() -> None:
    async with served() as running:
        await post(running, input="Hi")  # the other requests find the prompt in the cache
        whole = await post(running, input="Hi")
        streamed = await post(running, input="Hi", stream=True)
    wire.check_response(whole.json)
    assert anonymous(streamed.events[-1]["response"]) == anonymous(whole.json)
    assert streamed.text == "Hi"


def anonymous(response: dict[str, Any]) -> dict[str, Any]:
    """Return the response without the fields that differ each time."""
    items = [item | {"id": ""} for item in response["output"]]
    return response | {"id": "", "created_at": 0, "completed_at": 0, "output": items}


async def test_response_echoes_settings_and_counts_usage() -> None:
    settings: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 2,
        "metadata": {"k": "v"},
        "prompt_cache_key": "p",
        "safety_identifier": "s",
        "temperature": 0.0,
        "top_p": 0.5,
        "presence_penalty": 1.5,
        "frequency_penalty": -0.5,
    }
    async with served(aliases=("*",)) as running:
        first = (await post(running, model="gpt-9", input="Hello", **settings)).json
        again = (await post(running, model="gpt-9", input="Hello", **settings)).json
    assert {name: again[name] for name in settings} == settings
    assert (again["model"], again["status"]) == ("gpt-9", "incomplete")
    n_prompt = len("sBe brief.uHelloa")
    assert (first["usage"], again["usage"]) == (usage(n_prompt, 0, 2), usage(n_prompt, n_prompt - 1, 2))


def usage(n_prompt: int, cached: int, produced: int) -> dict[str, Any]:
    return {
        "input_tokens": n_prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": n_prompt - cached},
        "output_tokens": produced,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": n_prompt + produced,
    }


async def test_penalties_and_biases_change_the_output() -> None:
    """The scripted model gives the scripted byte a logit of 20, and all others 0."""
    async with served() as running:
        biased = await post(running, input="abcd", temperature=0, logit_bias={str(ord("b")): -100, str(ord("x")): 5})
        often = await post(running, input="a" * 12, temperature=0, presence_penalty=1, frequency_penalty=2)
        refused = await post(running, input="abcd", logit_bias={"261": 1})
    assert (biased.text, often.text) == ("axcd", "aaaaaaaaaa\0\1")
    message = "`logit_bias` names token 261; this model's tokens are 0 to 260."
    assert (refused.status, refused.json) == (400, error(message, "logit_bias"))


@pytest.mark.parametrize("stream", [True, False])
async def test_stop_string_ends_answer_and_generation(stream: bool) -> None:
    model = PacedModel(lambda message: b"one two three four", n_slots=1)
    async with served(model) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Count.", stop=["three", "zzz"], stream=stream)
        model.allow(len("one two three"))
        answer = await client.answer()
        assert answer.text == "one two "
        response = answer.events[-1]["response"] if stream else answer.json
        assert (response["status"], response["incomplete_details"]) == ("incomplete", None)
        assert response["responsed"] == {"stop": "three"}
        await running.app.wait_idle()
        model.go()
        await post(running, input="zzz")
    decodes = list(itertools.takewhile(lambda chunk: ord("z") not in chunk.tokens, model.decoded))
    assert len(decodes) in (13, 14)  # the next request may have begun


async def test_stream_with_split_characters_sends_whole_ones() -> None:
    text = "naïve 日本 👩‍🚀 é"
    async with served() as running:
        streamed = await post(running, input=text, stream=True)
    deltas = [event["delta"] for event in streamed.events if event["type"] == "response.output_text.delta"]
    assert deltas == list(text)


async def test_stream_frames_are_whole_and_first_two_are_one_chunk() -> None:
    async with served() as running:
        answer = await post(running, input="Hello", stream=True)
    frames = [[frame.event for frame in wire.parse_sse(chunk)] for chunk in answer.chunks]
    assert frames[0] == OPENING
    assert frames[-1] == [None]  # [DONE]
    assert list(itertools.chain(*frames)) == [*types(answer.events), None]


@pytest.mark.parametrize("stream", [True, False])
async def test_stream_opening_is_sent_before_prefill(stream: bool) -> None:
    model = PacedModel()
    async with served(model) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Hi", stream=stream)
        await model.wait_begun(1)
        if stream:
            await client.head()
            assert [frame.event for frame in wire.parse_sse(await client.chunk())] == OPENING
        assert model.decoded == []
        model.go()
        if stream:
            await client.frame("response.completed")
        else:
            assert (await client.answer()).text == "Hi"


async def test_requests_beyond_slots_wait_in_order() -> None:
    model = PacedModel(n_slots=1)
    async with served(model) as running:
        model.hold()
        clients = [await Client.to(running) for _ in "abcde"]
        for client, letter in zip(clients, "abcde", strict=True):
            await client.create(input=letter * 3, stream=True)
            await client.head()
            await trio.testing.wait_all_tasks_blocked()
        model.go()
        for client in clients:
            await client.frame("response.completed")
            async with client:
                pass
    letters = [bytes(token for token in chunk.tokens if token < 256)[-1:] for chunk in model.decoded]
    assert b"".join(letter for letter, _ in itertools.groupby(letters)) == b"abcde"


async def test_requests_within_slots_alternate() -> None:
    model = PacedModel(n_slots=2)
    async with served(model) as running, await Client.to(running) as one, await Client.to(running) as two:
        model.hold()
        await one.create(input="aaaa", stream=True)
        await model.wait_begun(1)
        await two.create(input="bbbb", stream=True)
        await trio.testing.wait_all_tasks_blocked()
        model.go()
        assert [(await one.answer()).text, (await two.answer()).text] == ["aaaa", "bbbb"]
    letters = b"".join(bytes(token for token in chunk.tokens if token < 256)[-1:] for chunk in model.decoded)
    assert letters == b"aababababb"  # a new request takes its turn after the running ones


# HTTP


NO_ID = error("'x' is not the id of a response: ids begin with `resp_`.", "response_id")


def meant(path: str, other: str) -> dict[str, Any]:
    return error(f"There is no endpoint {path}; use {other}.", None, "not_found")


Check = tuple[str, str, int, dict[str, str], Any]
PLAIN: list[Check] = [
    ("GET", "/health", 200, {"content-type": "application/json"}, {"status": "ok"}),
    ("GET", "/health?deep=1", 200, {}, {"status": "ok"}),
    ("HEAD", "/health", 200, {"content-length": "15"}, None),
    ("GET", "/v1/models", 200, {}, {"object": "list", "data": [MODEL, MODEL | {"id": "org/a name"}]}),
    ("HEAD", "/v1/models", 200, {}, None),
    ("GET", "/v1/models/scripted", 200, {}, MODEL),
    ("HEAD", "/v1/models/scripted", 200, {}, None),
    ("GET", "/v1/models/org%2Fa%20name", 200, {}, MODEL | {"id": "org/a name"}),
    ("GET", "/v1/models/org/a%20name", 200, {}, MODEL | {"id": "org/a name"}),
    ("GET", "/v1/models/nope", 404, {"content-type": "application/json"}, no_model("nope")),
    ("HEAD", "/v1/models/nope", 404, {}, None),
    ("GET", "/v1/models/", 404, {}, no_model("")),
    ("GET", "/v1/models/%ff", 404, {}, no_model("\ufffd")),
    ("OPTIONS", "/v1/responses", 204, {"allow": "POST, GET, OPTIONS"}, None),
    ("OPTIONS", "/v1/models/nope", 204, {"allow": "GET, HEAD, OPTIONS"}, None),
    ("OPTIONS", "/nope", 404, {}, error("There is no endpoint /nope.", None, "not_found")),
    ("GET", "/", 404, {"content-type": "application/json"}, error("There is no endpoint /.", None, "not_found")),
    ("GET", "/v1/responses/x", 400, {}, NO_ID),
    ("GET", "/v1/responses/resp_x", 404, {}, error("There is no response 'resp_x' here.", None, "not_found")),
    ("OPTIONS", "/v1/responses/x", 204, {"allow": "GET, DELETE, OPTIONS"}, None),
    ("OPTIONS", "/v1/responses/x/cancel", 204, {"allow": "POST, OPTIONS"}, None),
    ("GET", "/v1/responses/x/input_items", 400, {}, NO_ID),
    ("GET", "/v1/responses/", 404, {}, meant("/v1/responses/", "/v1/responses")),
    ("POST", "/responses", 404, {}, meant("/responses", "/v1/responses")),
    ("GET", "/v1/health", 404, {}, error("There is no endpoint /v1/health; use /health.", None, "not_found")),
    ("GET", "/models/", 404, {}, error("There is no endpoint /models/; use /v1/models.", None, "not_found")),
    ("GET", "/v1/responses/x/y", 404, {}, error("There is no endpoint /v1/responses/x/y.", None, "not_found")),
    (
        "POST", "/v1/responses/x", 405, {"allow": "GET, DELETE, OPTIONS"},
        error(
            "Method POST is not allowed for /v1/responses/x; allowed: GET, DELETE, OPTIONS.", None, "method_not_allowed"
        ),
    ),
    (
        "GET", "/v1/responses", 426, {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"},
        error(
            "GET opens a WebSocket here (RFC 6455): connect by ws://, or use POST over HTTP.", None, "upgrade_required"
        ),
    ),
    (
        "DELETE", "/v1/models", 405, {"allow": "GET, HEAD, OPTIONS"},
        error("Method DELETE is not allowed for /v1/models; allowed: GET, HEAD, OPTIONS.", None, "method_not_allowed"),
    ),
    ("HEAD", "/v1/responses", 405, {"allow": "POST, GET, OPTIONS"}, None),
]  # fmt: skip


async def test_path_and_method_give_expected_answer() -> None:
    async with served(aliases=("org/a name",)) as running:
        for method, path, status, headers, body in PLAIN:
            answer = await exchange(running, method, path)
            found = {name: answer.headers.get(name) for name in headers}
            assert (method, path, answer.status, found) == (method, path, status, headers)
            assert (json.loads(answer.body) if answer.body else None) == body, path
            assert re.fullmatch("req_[0-9a-f]{32}", answer.headers["x-request-id"])
            assert ("content-length" in answer.headers) == (status != 204)


async def test_answers_have_distinct_request_ids() -> None:
    bodies = [encode(input="Hi"), encode(input="Hi", stream=True), encode(), b"", encode(model="nope", input="x")]
    async with served() as running:
        answers = [await exchange(running, "POST", "/v1/responses", body) for body in bodies]
    assert [answer.status for answer in answers] == [200, 200, 400, 400, 404]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_stream_headers_turn_off_proxy_buffering() -> None:
    async with served() as running:
        headers = (await post(running, input="Hi", stream=True)).headers
    del headers["x-request-id"], headers["date"]
    assert headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "transfer-encoding": "chunked",
    }


async def test_connection_after_each_kind_of_answer_stays_open() -> None:
    kinds = [encode(input="Hi", stream=True), encode(input="Hi"), b"nope", encode(model="nope", input="Hi")]
    async with served() as running, await Client.to(running) as client:
        for body in [*kinds, *kinds]:
            await client.request("POST", "/v1/responses", body)
            assert (await client.answer()).status in (200, 400, 404)
        for method, path in (("HEAD", "/health"), ("OPTIONS", "/health"), ("GET", "/nope"), ("GET", "/health")):
            await client.request(method, path)
            last = await client.answer(method)
        assert last.json == {"status": "ok"}


async def test_stream_with_connection_close_is_complete() -> None:
    async with served() as running, await Client.to(running) as client:
        await client.request("POST", "/v1/responses", encode(input="Hi", stream=True), "Connection: close")
        answer = await client.answer()
        assert (answer.text, answer.headers["connection"], await client.rest()) == ("Hi", "close", b"")


@pytest.mark.parametrize("stream", [True, False])
async def test_http_1_0_request_is_answered_without_chunks(stream: bool) -> None:
    body = encode(input="Hi", stream=stream)
    async with served() as running, await Client.to(running) as client:
        await client.send(
            b"POST /v1/responses HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        answer = await client.answer()
        assert "transfer-encoding" not in answer.headers
        assert (answer.status, answer.text, await client.rest()) == (200, "Hi", b"")


async def test_expect_100_continue_is_answered() -> None:
    body = encode(input="Hi")
    head, _, _ = request("POST", "/v1/responses", body, "Expect: 100-continue").partition(b"\r\n\r\n")
    async with served() as running, await Client.to(running) as client:
        await client.send(head + b"\r\n\r\n")
        assert (await client.head()).status == 100
        await client.send(body)
        assert (await client.answer()).text == "Hi"


async def test_chunked_body_is_read() -> None:
    body = encode(input="Hi", stream=True)
    pieces = [body[:1], body[1:20], body[20:]]
    async with served() as running, await Client.to(running) as client:
        await client.send(request("POST", "/v1/responses", None, "Transfer-Encoding: chunked"))
        for piece in pieces:
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await trio.testing.wait_all_tasks_blocked()
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).text == "Hi"


async def test_body_sent_byte_by_byte_is_read() -> None:
    async with served() as running, await Client.to(running) as client:
        for byte in request("POST", "/v1/responses", encode(input="Hi")):
            await client.send(bytes([byte]))
        assert (await client.answer()).text == "Hi"


async def test_compressed_body_is_rejected() -> None:
    async with served() as running:
        answer = await exchange(running, "POST", "/v1/responses", b"\x1f\x8b", "Content-Encoding: gzip")
    message = "Content-Encoding 'gzip' is not supported; send the body without an encoding."
    assert (answer.status, answer.json) == (415, error(message, None, "unsupported_content_encoding"))


NAMES = [
    ((), NAME, 200),
    ((), "gpt-4o", 404),
    (("gpt-4o", "org/x"), "gpt-4o", 200),
    (("gpt-4o", "org/x"), "org/x", 200),
    (("gpt-4o", "org/x"), NAME, 200),
    (("gpt-4o",), "gpt-4", 404),
    (("*",), "anything", 200),
    (("*",), "", 200),
]


@pytest.mark.parametrize(("aliases", "name", "status"), NAMES)
async def test_model_name_or_alias_is_resolved(aliases: tuple[str, ...], name: str, status: int) -> None:
    async with served(aliases=aliases) as running:
        answer = await post(running, model=name, input="Hi")
        listed = await get(running, f"/v1/models/{name}")
    assert (answer.status, listed.status) == (status, status if name else 200)
    if status == 404:
        assert (answer.json, listed.json) == (no_model(name), no_model(name))


@pytest.mark.parametrize("body", [b'{"input":"Hi"}', encode(model=None, input="Hi")])
async def test_request_without_model_is_accepted_except_compact(body: bytes) -> None:
    async with served() as running:
        answer = await exchange(running, "POST", "/v1/responses", body)
        compact = await exchange(running, "POST", "/v1/responses/compact", body)
    assert (answer.status, answer.json["model"]) == (200, NAME)
    message = "`model` is missing: name the model that writes the summary."
    assert (compact.status, compact.json) == (400, error(message, "model"))


MOST_METADATA = {f"{n:064}": "x" * 512 for n in range(16)}
LARGER_METADATA: list[tuple[dict[str, Any], str, str]] = [
    ({**MOST_METADATA, "k": "x"}, "Expected `object` of length <= 16 in `metadata`.", "metadata"),
    ({"k" * 65: "x"}, f"Expected `str` of length <= 64 as the key '{'k' * 64}...' in `metadata`.", "metadata"),
    ({"k": "x" * 513}, "Expected `str` of length <= 512 in `metadata.k`.", "metadata.k"),
]


async def test_metadata_is_echoed_and_limited() -> None:
    async with served() as running:
        assert (await post(running, input="Hi", metadata=MOST_METADATA)).json["metadata"] == MOST_METADATA
        for metadata, message, param in LARGER_METADATA:
            refused = await post(running, input="Hi", metadata=metadata)
            assert (refused.status, refused.json) == (400, error(message, param))


async def test_health_without_running_engine_is_unavailable() -> None:
    """Call the ASGI application, because the daemon listens only while its engine runs."""
    _, app = wired(ScriptedModel(), Config(model=NAME))
    for method, path, message in (
        ("GET", "/health", "The engine has stopped: restart the server."),
        ("POST", "/v1/responses", "The server is shutting down; try again later."),
    ):
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": []}
        await app(scope, receive, send)
        assert (sent[0]["status"], (b"retry-after", b"1") in sent[0]["headers"]) == (503, True)
        assert json.loads(sent[1]["body"]) == server_error(message, "unavailable")


async def test_log_of_any_request_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    async with served() as running:
        await get(running, "/%0aCRITICAL%20forged")
        await post(running, input=[{"role": "user", "content": "x"}, {"type": "a\nb"}], **{"field\nforged": 1})
        await post(running, input=[{"role": "user", "content": "x"}, {"type": "a\nb"}], **{"field\nforged": 1})
        await running.app.wait_idle()
    numbers = r"(?:resp|req)_\w+|[\d.]+(?= ms| tokens/s)|(?<=in )\d+|(?<=cached )\d+"
    lines = [re.sub(numbers, "*", record.getMessage()) for record in caplog.records]
    answer = (
        "* * 127.0.0.1 /v1/responses whole completed: queue * ms, first token * ms, in * (cached *), out 2, "
        "* tokens/s, * ms; skipped: 'field\\nforged', 'item a\\nb'"
    )
    assert sorted(lines) == [answer, answer, "* 127.0.0.1 GET /%0aCRITICAL%20forged 404 not_found * ms"]


# Bodies that are too long, too slow, or never come


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


# Disconnects


def endless_a(message: bytes) -> bytes:
    return message * 500 if message.startswith(b"a") else message


HANG_UPS = {
    "while streaming": (True, "aaa", 3),
    "while not streaming": (False, "aaa", 3),
    "while its prompt is read": (True, "a" * 300, 2),
    "while its prompt is read, not streaming": (False, "a" * 300, 2),
    "before anything was done": (True, "aaa", 0),
}


@pytest.mark.parametrize(("stream", "input_", "decodes"), HANG_UPS.values(), ids=HANG_UPS)
async def test_disconnect_ends_generation(stream: bool, input_: str, decodes: int) -> None:
    model = PacedModel(endless_a, n_slots=1)
    async with served(model) as running:
        async with await Client.to(running) as client:
            model.hold()
            await client.create(input=input_, stream=stream)
            model.allow(decodes)
            await model.wait_begun(decodes + 1)
        await running.app.wait_idle()
        model.go()
        assert (await post(running, input="b")).text == "b"  # the only slot is free again
    assert sum(ord("a") in chunk.tokens for chunk in model.decoded) == decodes + 1


@pytest.mark.parametrize("stream", [True, False])
async def test_disconnect_while_queued_ends_request(stream: bool) -> None:
    model = PacedModel(n_slots=1)
    async with served(model) as running, await Client.to(running) as first, await Client.to(running) as third:
        model.hold()
        await first.create(input="x")
        await model.wait_begun(1)
        async with await Client.to(running) as second:
            await second.create(input="aaa", stream=stream)
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        await third.create(input="y")
        model.go()
        assert [(await first.answer()).text, (await third.answer()).text] == ["x", "y"]
        await running.app.wait_idle()
    assert not any(ord("a") in chunk.tokens for chunk in model.decoded)


async def test_disconnect_does_not_affect_other_requests() -> None:
    model = PacedModel(endless_a)
    async with served(model) as running, await Client.to(running) as stays:
        model.hold()
        await stays.create(input="Hello", stream=True)
        await model.wait_begun(1)
        async with await Client.to(running) as leaves:
            await leaves.create(input="aaa", stream=True)
            await leaves.head()
            await trio.testing.wait_all_tasks_blocked()  # now it has its slot, and both take turns
            model.allow(6)
            await leaves.frame("response.output_text.delta")
        model.go()
        answer = await stays.answer()
        await running.app.wait_idle()
    assert answer.text == "Hello"


async def test_disconnect_after_answer_is_ignored() -> None:
    async with served() as running:
        for _ in range(5):
            assert (await post(running, input="Hi", stream=True)).text == "Hi"
        await running.app.wait_idle()


# Faults


class Fatal(BaseException):
    """Exception that ends the inference thread."""


def fails_at(call: int, exception: BaseException) -> Reply:
    """Return a script that answers `die` until call `number`, which raises; it echoes other messages."""
    calls = itertools.count(1)

    def reply(message: bytes) -> bytes:
        if message.startswith(b"die") and next(calls) == call:
            raise exception
        return message

    return reply


@pytest.mark.parametrize("call", [1, 3])
async def test_engine_fault_in_stream_is_reported_and_server_continues(call: int) -> None:
    async with served(ScriptedModel(fails_at(call, ModelError("the model broke")))) as running:
        answer = await post(running, input="die", stream=True)
        assert (await post(running, input="Hi")).text == "Hi"
    begun = ["response.output_item.added", "response.content_part.added", *["response.output_text.delta"] * 2]
    begun += ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert types(answer.events) == [*OPENING, *(begun if call == 3 else []), "error", "response.failed"]
    fault, failed = answer.events[-2:]
    assert fault["error"] == server_error("the model broke")["error"]
    assert failed["response"]["error"] == {"code": "server_error", "message": "the model broke"}


@pytest.mark.parametrize("call", [1, 3])
async def test_engine_fault_without_stream_is_an_error(call: int) -> None:
    async with served(ScriptedModel(fails_at(call, ModelError("the model broke")))) as running:
        answer = await post(running, input="die")
        assert (await post(running, input="Hi")).text == "Hi"
    assert (answer.status, answer.json) == (500, server_error("the model broke"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("call", [1, 3])
async def test_dead_engine_thread_ends_all_requests_and_the_daemon(call: int, stream: bool) -> None:
    answers: list[Answer] = []

    async def listen(client: Client) -> None:
        answers.append(await client.answer())

    model = PacedModel(fails_at(call, Fatal("boom")))
    with pytest.RaisesGroup(pytest.RaisesExc(Fatal, match="boom"), flatten_subgroups=True):
        async with served(model) as running, await Client.to(running) as dies, await Client.to(running) as other:
            model.hold()
            await other.create(input="other" * 100, stream=True)
            await model.wait_begun(1)
            await dies.create(input="die", stream=stream)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listen, dies)
                    nursery.start_soon(listen, other)
                    model.go()
    whole = [answer for answer in answers if answer.headers["content-type"] == "application/json"]
    assert [(answer.status, set(answer.json)) for answer in whole] == ([] if stream else [(500, {"error"})])
    for answer in answers:
        if answer not in whole:
            assert answer.events[-1]["type"] == "response.failed"
    assert len(answers) == 2


class ForeignModel(ScriptedModel):
    """Model whose tokens are not in the vocabulary, as an example of an unexpected exception."""

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        logits = np.zeros(300, np.float32)
        logits[299] = 20
        return logits


async def test_unexpected_exception_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served(ForeignModel()) as running:
        streamed = await post(running, input="Hi", stream=True)
        whole = await post(running, input="Hi")
        assert (await get(running, "/health")).status == 200
    message = "Internal error; see the server log."
    assert types(streamed.events) == [*OPENING, "error", "response.failed"]
    assert streamed.events[-1]["response"]["error"] == {"code": "server_error", "message": message}
    assert (whole.status, whole.json) == (500, server_error(message))
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"] * 2


async def test_wait_idle_by_several_tasks_returns() -> None:
    model = PacedModel()
    async with served(model) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Hi")
        await model.wait_begun(1)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(running.app.wait_idle)
            await trio.testing.wait_all_tasks_blocked()
            model.go()
        assert (await client.answer()).text == "Hi"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_unknown_field_is_named_in_response(path: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    content = {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    async with served() as running:
        for _ in range(2):
            body = encode(**content, temprature=0.1, stream=stream)
            answer = await exchange(running, "POST", path, body)
            assert answer.status == 200
            if path == "/v1/responses":
                seen = [each["response"] for each in answer.events if "response" in each] if stream else [answer.json]
                assert [each["responsed"] for each in seen] == [{"skipped": ["temprature"]}] * len(seen)
        clean = (await post(running, input="Hi")).json
        await running.app.wait_idle()
    assert "responsed" not in clean
    assert sum("skipped: 'temprature'" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_unknown_field_with_strict_fields_is_rejected(path: str) -> None:
    content = {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    async with served(strict_fields=True) as running:
        answer = await exchange(running, "POST", path, encode(**content, temprature=0.1))
        assert (answer.status, answer.json["error"]["param"]) == (400, "temprature")
        assert (await exchange(running, "POST", path, encode(**content, temperature=0.1))).status == 200


@pytest.mark.parametrize(
    ("limit", "status"), [("9" * 400, 200), ("9" * 18, 200), ("-1", 200), ("1e400", 400), ("0", 400), ("-2", 400)]
)
async def test_token_limit_of_any_size_is_no_server_error(limit: str, status: int) -> None:
    body = b'{"model": "scripted", "input": "Hi", "max_output_tokens": ' + limit.encode() + b"}"
    async with served() as running:
        answer = await exchange(running, "POST", "/v1/responses", body)
    assert answer.status == status
