"""Hostile connections, all at once, with and without a key: nothing dies, no 500, and a stream beside them goes on."""

import gzip
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from tests.support.certificates import certificate
from tests.support.helpers import PATIENCE, Client, encode, request, served

pytestmark = pytest.mark.slow

KEY = "0123456789abcdef-key"
AUTHORIZED = f"Authorization: Bearer {KEY}"
PATH = "/v1/responses"
CHUNKED = request("POST", PATH, None, AUTHORIZED, "Transfer-Encoding: chunked")
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {'a' * 22}==",
)


def post(body: bytes, *headers: str, path: str = PATH) -> bytes:
    return request("POST", path, body, AUTHORIZED, *headers)


def custom(syntax: str, definition: str) -> dict[str, Any]:
    return {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": syntax, "definition": definition}}


HOSTILE: Mapping[str, bytes] = {
    "half handshake": b"\x16\x03\x01\x02\x00\x01\x00",
    "100,000 headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
    "header of 5 MB": b"GET / HTTP/1.1\r\nHost: localhost\r\na: " + b"b" * 5_000_000,
    "half a head": b"GET / HT",
    "1,000 pipelined": request("GET", "/v1/models", None, AUTHORIZED) * 1000,
    "smuggled by both lengths": post(b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n", "Transfer-Encoding: chunked"),
    "smuggled by two lengths": post(b"hello!", "Content-Length: 5"),
    "endless length": request("POST", PATH, None, AUTHORIZED, "Content-Length: 99999999999999999999999"),
    "endless chunk": CHUNKED + b"ffffffffffffffffffff\r\nx",
    "chunk below zero": CHUNKED + b"-1\r\nx",
    "chunk of words": CHUNKED + b"1;" + b"a" * 70_000 + b"\r\n{\r\n0\r\n\r\n",
    "chunks of a byte": CHUNKED + b"".join(b"1\r\n%c\r\n" % each for each in encode(input="Hi")) + b"0\r\n\r\n",
    "10,000 trailers": CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    "a million brackets": post(b'{"input":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "a million braces in chat": post(b'{"messages":' + b'{"a":' * 1_000_000, path="/v1/chat/completions"),
    "a million brackets in a message": request("GET", PATH, None, AUTHORIZED, *UPGRADE)
    + b"\x81\xff"
    + (1_000_000).to_bytes(8, "big")
    + bytes(4)
    + b"[" * 1_000_000,
    "grammar of parentheses": post(
        encode(input="Hi", tools=[custom("lark", "start: " + "(" * 20_000 + '"a"' + ")" * 20_000)])
    ),
    "regex of parentheses": post(encode(input="Hi", tools=[custom("regex", "(" * 20_000 + "a" + ")" * 20_000)])),
    "gzip": post(gzip.compress(bytes(10_000_000)), "Content-Encoding: gzip"),
    "gzip without a word": post(gzip.compress(encode(input="Hi"))),
    "UTF-16": post('{"input": "Hi"}'.encode("utf-16")),
    "surrogates": post(b'{"input": "' + b"\\ud800" * 50_000 + b'"}'),
    "number of 5,000 digits": post(b'{"input": "Hi", "max_output_tokens": ' + b"9" * 5000 + b"}"),
    "20,000 equal fields": post(b"{" + b'"input": "Hi",' * 20_000 + b'"store": false}'),
    "body without a key": request("POST", PATH, b"x" * 3_000_000),
    "key of 30 kB": request("GET", "/v1/models", None, "Authorization: Bearer " + "k" * 30_000),
    "rebinding": post(encode(input="Hi"), "Origin: http://evil.example").replace(b"localhost", b"evil.example"),
    "old upgrade": request("GET", "/health", None, "Upgrade: h2c", "HTTP2-Settings: AAA", "Connection: Upgrade"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(200),
}


async def attack(stream: trio.abc.Stream, sent: bytes, statuses: set[int]) -> None:
    """Send it, read for a moment, and leave without a word."""
    found = bytearray()

    async def read() -> None:
        with suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                found.extend(data)

    with trio.move_on_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(sent)
    await trio.aclose_forcefully(stream)
    statuses.update(int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3})", found))


@pytest.mark.parametrize("encrypted", [False, True])
async def test_hostile_connections_end_alone(encrypted: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = certificate(tmp_path)
    tls: dict[str, Any] = {"ssl_certfile": found.certfile, "ssl_keyfile": found.keyfile} if encrypted else {}
    model = ScriptedModel(lambda prompt: b"x" * 400, seconds_per_token=0.005)
    statuses: set[int] = set()
    async with served(model, keys={"ann": KEY}, **tls) as running:

        async def connect() -> trio.abc.Stream:
            plain = await trio.open_tcp_stream("127.0.0.1", running.port)
            return trio.SSLStream(plain, found.client_context, server_hostname="localhost") if encrypted else plain

        async with Client(await connect()) as client:
            await client.request("POST", PATH, encode(input="Hi", stream=True), AUTHORIZED)
            await client.created()
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for sent in HOSTILE.values():
                        nursery.start_soon(attack, await connect(), sent, statuses)
                        if encrypted:
                            nursery.start_soon(
                                attack, await trio.open_tcp_stream("127.0.0.1", running.port), sent, statuses
                            )
                assert b"response.completed" in await client.rest_of_stream()
        async with Client(await connect()) as client:
            await client.request("GET", "/health")
            assert (await client.answer()).status == 200
    assert statuses & {500, 502, 504} == set()
    assert {101, 200, 400, 401, 415, 421, 431, 505} <= statuses
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []
