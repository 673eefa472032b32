"""Limits of connections, in all and by address, and of clients that do not read."""

import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from server.access.proxies import TrustedProxies
from server.http.connection import Connection
from server.http.connection_limits import ConnectionCount
from server.http.drain import Drain
from server.http.exchange import Receive, Scope, Send
from server.http.options import HTTPLimits, HTTPOptions
from tests.support import wire
from tests.support.helpers import PATIENCE, Client, post, served

LIMITS = HTTPLimits(connections=4, connections_per_address=2)
ARRIVALS: list[tuple[list[str], bool, list[bool]]] = [
    (["192.0.2.1"] * 3, True, [True, True, False]),
    (["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"], True, [True] * 4),
    (["127.0.0.1"] * 4, True, [True] * 4),
    (["::1"] * 4, True, [True] * 4),
    (["unix"] * 4, True, [True] * 4),
    (["fe80::1%eth0"] * 3, True, [True, True, False]),
    (["127.0.0.1"] * 5, True, [True] * 5),
    (["127.0.0.1"] * 5, False, [True, True, True, True, False]),
]


@pytest.mark.parametrize(("addresses", "idle", "expected"), ARRIVALS)
def test_connection_is_admitted_up_to_the_limits(addresses: list[str], idle: bool, expected: list[bool]) -> None:
    count = ConnectionCount(HTTPOptions(LIMITS), lambda: 100, lambda: idle)
    open_ones = [count.admit(address) for address in addresses]
    assert [each.__enter__() for each in open_ones] == expected
    for each in open_ones:
        each.__exit__(None, None, None)
    with count.admit(addresses[0]) as admitted:
        assert admitted, "connections that are closed do not count"


def test_trusted_proxy_has_no_limit_of_connections() -> None:
    options = HTTPOptions(LIMITS, TrustedProxies(["192.0.2.0/24"]))
    count = ConnectionCount(options, lambda: 100, lambda: True)
    arrivals = [count.admit(address) for address in ("192.0.2.1",) * 3 + ("203.0.113.1",) * 3]
    assert [each.__enter__() for each in arrivals] == [True, True, True, True, True, False]


def test_connections_never_exceed_the_file_descriptors() -> None:
    count = ConnectionCount(HTTPOptions(LIMITS), lambda: 1, lambda: False)
    with count.admit("127.0.0.1") as first, count.admit("127.0.0.1") as second:
        assert (first, second) == (True, False)


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


async def test_answer_beyond_its_time_fails_with_its_text(tmp_path: Path) -> None:
    model = ScriptedModel(lambda prompt: b"x" * 3000)
    async with served(model, answer_timeout_seconds=0.0, state=tmp_path) as running, await Client.to(running) as client:
        await client.create(input="Hello", stream=True)
        last = wire.events((await client.answer()).body)[-1]
    assert (last["type"], last["response"]["error"]["message"]) == (
        "response.failed",
        "The answer took longer than 0 s (--answer-timeout).",
    )


async def test_body_that_takes_too_long_gets_408() -> None:
    async with served(body_timeout_seconds=0.3) as running, await Client.to(running) as client:
        await client.send(
            b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n"
        )
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                while True:
                    await client.send(b" ")
                    await trio.sleep(0.05)

            nursery.start_soon(trickle)
            head = await client.head()
            nursery.cancel_scope.cancel()
    assert head.status == 408
