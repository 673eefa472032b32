"""HTTP of the API: paths, methods, headers, connections, names of models, the log's lines."""

import json
import logging
import re
from typing import Any

import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from server.config.config import Config
from tests.server.api.test_app import MODEL, error, no_model, server_error
from tests.support.helpers import (
    NAME,
    Client,
    encode,
    exchange,
    get,
    post,
    request,
    served,
    wired,
)

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
    ("HEAD", "/", 200, {"content-type": "text/html; charset=utf-8"}, None),
    ("GET", "//", 404, {"content-type": "application/json"}, meant("//", "/")),
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


@pytest.mark.slow
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
    ({**MOST_METADATA, "k": "x"}, "`metadata` may have at most 16 entries.", "metadata"),
    ({"k" * 65: "x"}, f"The key '{'k' * 64}...' of `metadata` may have at most 64 characters.", "metadata"),
    ({"k": "x" * 513}, "`metadata.k` may have at most 512 characters.", "metadata.k"),
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
