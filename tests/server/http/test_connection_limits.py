"""Limits of connections, in all and by address, and of clients that do not read."""

import select
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from server.access.proxies import TrustedProxies
from server.http.connection import Connection
from server.http.connection_limits import Admission, ConnectionCount
from server.http.drain import Drain
from server.http.exchange import Receive, Scope, Send
from server.listening.options import HTTPLimits, HTTPOptions
from tests.support import wire
from tests.support.helpers import PATIENCE, Client, encode, exchange, post, request, served

LIMITS = HTTPLimits(connections=4, connections_per_address=2)
ARRIVALS: list[tuple[list[str], bool, str]] = [
    (["192.0.2.1"] * 3, True, "AA-"),
    (["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"], True, "AAAA"),
    (["127.0.0.1"] * 4, True, "AAAA"),
    (["::1"] * 4, True, "AAAA"),
    (["unix"] * 4, True, "AAAA"),
    (["fe80::1%eth0"] * 3, True, "AA-"),
    (["127.0.0.1"] * 5, True, "AAAAA"),
    (["127.0.0.1"] * 22, False, "AAAA" + "R" * 18),
    (["127.0.0.1"] * 4 + ["192.0.2.1"] * 3, False, "AAAARR-"),
]


def kinds(arrivals: Sequence[AbstractContextManager[Admission]]) -> str:
    letters = {Admission.ADMITTED: "A", Admission.RESERVED: "R", Admission.REFUSED: "-"}
    return "".join(letters[each.__enter__()] for each in arrivals)


@pytest.mark.parametrize(("addresses", "idle", "expected"), ARRIVALS)
def test_connection_is_admitted_up_to_the_limits(addresses: list[str], idle: bool, expected: str) -> None:
    count = ConnectionCount(HTTPOptions(LIMITS), lambda: 100, lambda: idle)
    open_ones = [count.admit(address) for address in addresses]
    assert kinds(open_ones) == expected
    for each in open_ones:
        each.__exit__(None, None, None)
    with count.admit(addresses[0]) as admission:
        assert admission is Admission.ADMITTED, "connections that are closed do not count"


def test_trusted_proxy_has_no_limit_of_connections() -> None:
    options = HTTPOptions(LIMITS, TrustedProxies(["192.0.2.0/24"]))
    count = ConnectionCount(options, lambda: 100, lambda: True)
    arrivals = [count.admit(address) for address in ("192.0.2.1",) * 3 + ("203.0.113.1",) * 3]
    assert kinds(arrivals) == "AAAAA-"


def test_connections_never_exceed_the_file_descriptors() -> None:
    count = ConnectionCount(HTTPOptions(LIMITS), lambda: 1, lambda: False)
    with count.admit("127.0.0.1") as first, count.admit("127.0.0.1") as second:
        assert (first, second) == (Admission.ADMITTED, Admission.RESERVED)


@pytest.mark.slow
async def test_client_that_never_reads_counts_as_disconnected() -> None:
    ours, theirs = socket.socketpair()
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(10_000_000), "more_body": True})
        events.append((await receive())["type"])

    with theirs, trio.fail_after(PATIENCE):
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with stream:
            await Connection(app, stream, Drain(), HTTPOptions(HTTPLimits(write_seconds=0.1))).run()
    assert events == ["http.disconnect"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [{"role": "user", "content": "x"}] * 4}, "input"),
        (
            {"input": "Hi", "tools": [{"type": "function", "name": f"f{n}", "parameters": {}} for n in range(3)]},
            "tools",
        ),
    ],
)
async def test_request_with_too_many_entries_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    async with served(max_items=3, max_tools=2) as running:
        refused = await post(running, **body)
        fits = await post(running, **{**body, param: body[param][:-1]})
    flag = {"input": "--max-items", "tools": "--max-tools"}[param]
    entries = len(body[param])
    assert (refused.status, refused.json["error"]["param"], refused.json["error"]["message"]) == (
        400,
        param,
        f"`{param}` has {entries} entries; this server accepts {entries - 1} (raise it by {flag}).",
    )
    assert fits.status == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}] * 4}, "messages"),
        (
            {
                "messages": [{"role": "user", "content": "x"}],
                "tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(3)],
            },
            "tools",
        ),
    ],
)
async def test_chat_with_too_many_entries_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    async with served(max_items=3, max_tools=2) as running:
        refused = await exchange(running, "POST", "/v1/chat/completions", encode(**body))
        fits = await exchange(running, "POST", "/v1/chat/completions", encode(**{**body, param: body[param][:-1]}))
    assert (refused.status, refused.json["error"]["param"], fits.status) == (400, param, 200)


def schema(size: int) -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False, "description": "x" * size}


SCHEMAS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/responses", {"tools": [{"type": "function", "name": "f", "parameters": schema(1000)}]}, "tools"),
    (
        "/v1/responses",
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": schema(1000)}}},
        "text.format.schema",
    ),
    (
        "/v1/chat/completions",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema(1000)}}},
        "response_format.json_schema.schema",
    ),
]


@pytest.mark.parametrize(("path", "fields", "param"), SCHEMAS)
async def test_schema_that_is_too_large_is_refused_by_name(path: str, fields: dict[str, Any], param: str) -> None:
    text = {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    async with served(max_schema_kilobytes=1) as running:
        refused = (await exchange(running, "POST", path, encode(**text, **fields))).json["error"]
    async with served(max_schema_kilobytes=2) as running:
        fits = await exchange(running, "POST", path, encode(**text, **fields))
    assert (refused["param"], refused["message"][-52:]) == (
        param,
        "accepts 1000 (raise it with --max-schema-kilobytes).",
    )
    assert fits.status == 200


@pytest.mark.parametrize(
    ("requested", "limit", "echoed", "tokens"), [(None, 3, None, 3), (9, 3, 3, 3), (2, 3, 2, 2), (9, 0, 9, 9)]
)
async def test_answer_is_limited_by_request_and_server(
    requested: int | None, limit: int, echoed: int | None, tokens: int
) -> None:
    model = ScriptedModel(lambda prompt: b"a long answer without an end")
    async with served(model, max_output_tokens=limit) as running:
        answer = (await post(running, input="Hi", max_output_tokens=requested)).json
    assert (answer["max_output_tokens"], answer["usage"]["output_tokens"], answer["incomplete_details"]) == (
        echoed,
        tokens,
        {"reason": "max_output_tokens"},
    )


@pytest.mark.parametrize(
    ("characters", "fields", "status"),
    [
        (30, {}, 200),
        (40, {}, 400),
        (10_000, {}, 400),
        (40, {"truncation": "auto"}, 400),
        (10, {"truncation": "auto", "earlier": 40}, 200),
        (10, {"earlier": 40}, 400),
    ],
)
async def test_prompt_is_limited_by_the_server(characters: int, fields: dict[str, Any], status: int) -> None:
    turn = [{"role": "user", "content": "y" * fields.pop("earlier", 0)}, {"role": "assistant", "content": "y"}]
    items = [*(turn if turn[0]["content"] else []), {"role": "user", "content": "x" * characters}]
    async with served(max_prompt_tokens=40) as running:
        answer = await post(running, input=items, **fields)
    assert answer.status == status
    if status == 400:
        assert answer.json["error"] == {
            "message": "The input has more than 40 tokens, which this server accepts. "
            "Shorten the input, or raise the limit with --max-prompt-tokens.",
            "type": "invalid_request_error",
            "param": "input",
            "code": "context_length_exceeded",
        }
    else:
        assert 0 < answer.json["usage"]["input_tokens"] <= 40


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 40}]}),
        ("/v1/completions", {"prompt": "x" * 41}),
        ("/v1/responses/input_tokens", {"input": "x" * 40}),
    ],
)
async def test_prompt_is_limited_on_every_path_that_generates(path: str, body: dict[str, Any]) -> None:
    async with served(max_prompt_tokens=40) as running:
        answer = await exchange(running, "POST", path, encode(**body))
    assert (answer.status == 200) is path.endswith("input_tokens")


async def test_answer_beyond_its_time_fails_with_its_text(tmp_path: Path) -> None:
    model = ScriptedModel(lambda prompt: b"x" * 3000)
    async with served(model, answer_timeout_seconds=0.0, state=tmp_path) as running, await Client.to(running) as client:
        await client.create(input="Hello", stream=True)
        last = wire.events((await client.answer()).body)[-1]
    assert (last["type"], last["response"]["error"]["message"]) == (
        "response.failed",
        "The answer took longer than 0 s (--answer-timeout).",
    )


@pytest.mark.slow
async def test_body_that_takes_too_long_gets_408() -> None:
    async with served(body_timeout_seconds=0.1) as running, await Client.to(running) as client:
        await client.send(
            b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n"
        )
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                while True:
                    await client.send(b" ")
                    await trio.sleep(0.02)

            nursery.start_soon(trickle)
            answer = await client.answer()
            nursery.cancel_scope.cancel()
    assert answer.status == 408
    assert answer.json["error"]["message"] == (
        "The body did not arrive within 0.1 s; send it faster, or a smaller one, or start the server with a larger "
        "--body-timeout."
    )


@pytest.mark.slow
async def test_probe_is_answered_while_all_connections_are_busy() -> None:
    async with served(max_connections=2) as running, AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(await Client.to(running))
            await client.send(request("POST", "/v1/responses", None, "Content-Length: 1000") + b"{")
        await trio.testing.wait_all_tasks_blocked(0.05)
        found = [await exchange(running, "GET", path) for path in ("/health", "/ready", "/v1/models")]
        body = await exchange(running, "POST", "/v1/responses", encode(input="x" * 100_000))
    assert [each.status for each in (*found, body)] == [200, 200, 503, 503]
    assert (body.headers["retry-after"], body.json["error"]["code"]) == ("1", "unavailable")


async def test_connections_that_arrive_at_once_wait_in_the_kernel() -> None:
    """The event loop does not run meanwhile. Beyond the backlog, a client would repeat its SYN after a second."""
    async with served() as running:
        arrivals = [socket.socket() for _ in range(300)]
        for each in arrivals:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", running.port))
        waiting = select.poll()
        for each in arrivals:
            waiting.register(each, select.POLLOUT)
        connected = len(waiting.poll(0))
        for each in arrivals:
            each.close()
    assert connected == 300
