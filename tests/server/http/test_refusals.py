"""Refusals below HTTP, counted by reason and served by `/metrics`."""

import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from engine.backends.scripted import ScriptedModel
from server.access.proxies import TrustedProxies
from server.access.refusals import Refusal
from server.http.connection_limits import ConnectionCount
from server.listening.options import HTTPLimits, HTTPOptions
from tests.support.certificates import certificate, tls_client
from tests.support.helpers import PATIENCE, Client, PacedModel, Running, encode, request, served

Action: TypeAlias = Callable[[Client], Awaitable[None]]
HEALTH = request("GET", "/health")
PAGE = Path(__file__).parents[3] / "server/docs/metrics.md"


def sending(data: bytes, *, half_close: bool = False) -> Action:
    """Return a client that sends these bytes, and reads until the server closes."""

    async def act(client: Client) -> None:
        await client.send(data)
        if half_close:
            await client.half_close()
        with trio.fail_after(PATIENCE):
            await client.rest()

    return act


async def leave(client: Client) -> None:
    """Close without a word, like a port scanner."""


async def ask_and_idle(client: Client) -> None:
    await client.send(HEALTH)
    await client.answer()
    with trio.fail_after(PATIENCE):
        assert await client.rest() == b""


PLAIN: dict[str, tuple[Action, dict[Refusal, int]]] = {
    "garbage": (sending(b"\x00\x01 garbage\r\n\r\n"), {Refusal.MALFORMED: 1}),
    "bare LF": (sending(b"GET / HTTP/1.1\nHost: localhost\r\n\r\n"), {Refusal.MALFORMED: 1}),
    "HTTP/2": (sending(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), {Refusal.MALFORMED: 1}),
    "two hosts": (sending(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), {Refusal.MALFORMED: 1}),
    "bad chunk": (
        sending(
            b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"
        ),
        {Refusal.MALFORMED: 1},
    ),
    "garbage behind an answer": (sending(HEALTH + b"garbage\r\n\r\n"), {Refusal.MALFORMED: 1}),
    "large head": (
        sending(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000 + b"\r\n\r\n"),
        {Refusal.HEAD_TOO_LARGE: 1},
    ),
    "half a head": (sending(HEALTH[:20]), {Refusal.HEAD_TIMEOUT: 1}),
    "second head cut": (sending(HEALTH + HEALTH[:20]), {Refusal.HEAD_TIMEOUT: 1}),
    "nothing": (sending(b""), {Refusal.NO_REQUEST: 1}),
    "end in a head": (sending(HEALTH[:20], half_close=True), {Refusal.TRUNCATED: 1}),
    "scanner": (leave, {}),
    "answer, then idle": (ask_and_idle, {}),
}
"""Client -> refusals that it causes."""


async def refusals(client: Client, *headers: str) -> dict[str, float]:
    """Return the counts that are not 0, as the metrics have them, with a request on this connection."""
    await client.request("GET", "/metrics", None, *headers)
    text = (await client.answer()).body.decode()
    (family,) = [each for each in text_string_to_metric_families(text) if each.name == "responsed_connections_refused"]
    found = {sample.labels["reason"]: sample.value for sample in family.samples}
    assert found.keys() == {reason.value for reason in Refusal}, "all reasons are there from the start"
    return {reason: count for reason, count in found.items() if count}


def expected(*causes: dict[Refusal, int]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for reason, count in [item for cause in causes for item in cause.items()]:
        counts[reason.value] = counts.get(reason.value, 0) + count
    return counts


async def run(running: Running, action: Action) -> None:
    async with await Client.to(running) as client:
        await action(client)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLAIN)
async def test_refusal_is_counted_by_its_reason(kind: str) -> None:
    action, causes = PLAIN[kind]
    async with served(metrics=True, keep_alive_timeout_seconds=0.1) as running:
        await run(running, action)
        async with await Client.to(running) as client:
            assert await refusals(client) == expected(causes)


@pytest.mark.slow
async def test_refusals_of_all_kinds_at_once_are_summed() -> None:
    async with served(metrics=True, keep_alive_timeout_seconds=0.3) as running:
        async with trio.open_nursery() as nursery:
            for action, _ in PLAIN.values():
                for _ in range(3):
                    nursery.start_soon(run, running, action)
        async with await Client.to(running) as client:
            assert await refusals(client) == expected(*[causes for _, causes in PLAIN.values()] * 3)


TLS: dict[str, tuple[bytes, dict[Refusal, int]]] = {
    "plain HTTP": (HEALTH, {Refusal.PLAIN_HTTP: 1}),
    "garbage in a handshake": (b"\x16garbage that is long enough", {Refusal.HANDSHAKE: 1}),
    "half a handshake": (b"\x16\x03\x01", {Refusal.HANDSHAKE_TIMEOUT: 1}),
    "nothing": (b"", {Refusal.HANDSHAKE_TIMEOUT: 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TLS)
async def test_refusal_of_a_handshake_is_counted_by_its_reason(kind: str, tmp_path: Path) -> None:
    data, causes = TLS[kind]
    found = certificate(tmp_path)
    settings: dict[str, Any] = {"ssl_certfile": found.certfile, "ssl_keyfile": found.keyfile}
    async with served(metrics=True, keep_alive_timeout_seconds=0.2, **settings) as running:
        await run(running, sending(data))
        async with await tls_client(running.port, found.client_context) as client:
            assert await refusals(client) == expected(causes)


@pytest.mark.slow
async def test_client_that_stops_reading_is_counted(tmp_path: Path) -> None:
    model = ScriptedModel(lambda prompt: b"x" * 3000)
    async with served(model, metrics=True, write_timeout_seconds=0.1) as running:
        connected = trio.socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        await connected.connect(("127.0.0.1", running.port))
        async with Client(trio.SocketStream(connected)) as stuck:
            fields = {"top_logprobs": 20, "include": ["message.output_text.logprobs"]}
            await stuck.create(input="x", stream=True, **fields)
            await trio.sleep(0.1)
            with trio.fail_after(PATIENCE):
                await running.app.wait_idle()
        async with await Client.to(running) as client:
            assert await refusals(client) == {"write_timeout": 1}


@pytest.mark.slow
async def test_connections_beyond_the_limit_are_counted() -> None:
    """An idle connection gives its place to the next; once both places work, others get a 503."""
    model = PacedModel()
    async with (
        served(model, metrics=True, max_connections=2) as running,
        await Client.to(running) as first,
        await Client.to(running) as second,
        await Client.to(running) as third,
    ):
        assert await refusals(third) == {"displaced": 1}
        assert await first.rest() == b""
        model.hold()
        for each in (second, third):
            await each.create(input="Hi", stream=True)
            await each.created()
        for _ in range(2):
            async with await Client.to(running) as beyond:
                await beyond.send(request("POST", "/v1/responses", encode(input="Hi")))
                assert (await beyond.answer()).status == 503
        async with await Client.to(running) as probe:
            await probe.send(HEALTH)
            assert (await probe.answer()).status == 200
        model.go()
        await third.rest_of_stream()
        assert await refusals(third) == {"displaced": 1, "connection_limit": 2}


ADDRESSES = ["192.0.2.1"] * 5 + ["203.0.113.1"] * 3 + ["127.0.0.1"] * 4


def test_connections_of_one_address_beyond_its_limit_are_counted() -> None:
    options = HTTPOptions(HTTPLimits(connections=8, connections_per_address=2), TrustedProxies(["203.0.113.0/24"]))
    count = ConnectionCount(options, lambda: 100, lambda: False)
    open_ones = [count.admit(address) for address in ADDRESSES]
    for each in open_ones:
        each.__enter__()
    assert {reason: n for reason, n in options.refusals.items() if n} == {"address_limit": 3}


def test_page_explains_each_reason() -> None:
    section = PAGE.read_text().partition("## Refusals below HTTP")[2]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [reason.value for reason in Refusal]
