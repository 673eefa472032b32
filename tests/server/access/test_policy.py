"""Checks of Host, Origin and media type, for web pages and for clients."""

import json
from typing import Any

import pytest

from server.access.policy import AccessPolicy
from server.protocol.errors import ApiError, ForeignOrigin, Misdirected
from tests.support.helpers import Client, Running, encode, served

HOSTS = [
    ("localhost", None),
    ("localhost:8080", None),
    ("LocalHost.:8080", None),
    ("127.0.0.1:8080", None),
    ("192.168.1.7", None),
    ("[::1]:8080", None),
    ("[fe80::1]", None),
    ("", None),
    (None, None),
    ("box.lan:8080", None),
    ("evil.example", Misdirected),
    ("evil.example:8080", Misdirected),
    ("localhost.evil.example", Misdirected),
    ("127.0.0.1.evil.example", Misdirected),
    ("foo.localhost", Misdirected),
    ("127.1", Misdirected),
    ("0x7f000001", Misdirected),
    ("localhost:80:80", Misdirected),
    ("user@localhost", Misdirected),
    ("[::1", Misdirected),
    ("127.0.0.1, evil.example", Misdirected),
]
ORIGINS = [
    ("http://localhost:8080", "localhost:8080", None),
    ("HTTP://LOCALHOST:8080", "localhost:8080", None),
    ("http://127.0.0.1:8080", "127.0.0.1:8080", None),
    ("http://[::1]:8080", "[::1]:8080", None),
    ("http://localhost", "localhost", None),
    ("http://localhost", "localhost:80", None),
    ("https://box.lan", "box.lan", None),
    ("https://app.example", "localhost:8080", None),
    (None, "localhost:8080", None),
    ("null", "localhost:8080", ForeignOrigin),
    ("", "localhost:8080", ForeignOrigin),
    ("http://localhost:8081", "localhost:8080", ForeignOrigin),
    ("http://localhost", "localhost:8080", ForeignOrigin),
    ("https://localhost", "localhost:80", ForeignOrigin),
    ("http://127.0.0.1:8080", "localhost:8080", ForeignOrigin),
    ("http://evil.example", "localhost:8080", ForeignOrigin),
    ("http://app.example", "localhost:8080", ForeignOrigin),
    ("https://app.example.evil.example", "localhost:8080", ForeignOrigin),
    ("file://", "localhost:8080", ForeignOrigin),
    ("chrome-extension://abc", "localhost:8080", ForeignOrigin),
    ("http://localhost:8080", None, ForeignOrigin),
]


def outcome(host: str | None, origin: str | None) -> type[ApiError] | None:
    try:
        AccessPolicy(["box.lan", "127.0.0.1"], ["https://app.example"]).check(host, origin)
    except ApiError as error:
        return type(error)
    return None


@pytest.mark.parametrize(("host", "expected"), HOSTS)
def test_access_by_host_allows_addresses_and_listed_names(host: str | None, expected: type[ApiError] | None) -> None:
    assert outcome(host, None) is expected


@pytest.mark.parametrize(("origin", "host", "expected"), ORIGINS)
def test_access_by_origin_allows_its_own_and_listed_ones(
    origin: str | None, host: str | None, expected: type[ApiError] | None
) -> None:
    assert outcome(host, origin) is expected


BODY = encode(input="Hi")
JSON = "Content-Type: application/json"
LOCAL = "Host: localhost"
REQUESTS: list[tuple[str, list[str], bytes, int]] = [
    ("POST /v1/responses", [LOCAL, JSON], BODY, 200),
    ("POST /v1/responses", [LOCAL, "content-type: Application/JSON; charset=UTF-8"], BODY, 200),
    ("POST /v1/responses", [LOCAL, "Content-Type: application/json;charset=latin-1"], BODY, 200),
    ("POST /v1/responses", [LOCAL, JSON, "Content-Encoding: Identity"], BODY, 200),
    ("POST /v1/responses", [LOCAL, JSON], b"\xef\xbb\xbf" + BODY, 200),
    ("POST /v1/responses", [LOCAL], BODY, 415),
    ("POST /v1/responses", [LOCAL, "Content-Type: text/plain"], BODY, 415),
    ("POST /v1/responses", [LOCAL, "Content-Type: application/x-www-form-urlencoded"], BODY, 415),
    ("POST /v1/responses", [LOCAL, "Content-Type: application/jsonp"], BODY, 415),
    ("POST /v1/responses", [LOCAL, "Content-Type: text/plain; application/json"], BODY, 415),
    ("POST /v1/chat/completions", [LOCAL, "Content-Type: text/plain"], b"{}", 415),
    ("POST /v1/conversations", [LOCAL, "Content-Type: text/plain"], b"{}", 415),
    ("POST /v1/responses/input_tokens", [LOCAL, "Content-Type: multipart/form-data"], b"{}", 415),
    ("POST /v1/responses", [LOCAL, JSON, "Content-Encoding: gzip"], BODY, 415),
    ("POST /v1/responses", [LOCAL, JSON, "Origin: http://evil.example"], BODY, 403),
    ("POST /v1/responses", [LOCAL, JSON, "Origin: null"], BODY, 403),
    ("POST /v1/responses/resp_x/cancel", [LOCAL, "Origin: http://evil.example"], b"", 403),
    ("POST /v1/conversations", [LOCAL, "Origin: http://evil.example"], b"", 403),
    ("DELETE /v1/responses/resp_x", [LOCAL, "Origin: http://evil.example"], b"", 403),
    ("GET /v1/models", [LOCAL, "Origin: http://evil.example"], b"", 403),
    ("OPTIONS /v1/responses", [LOCAL, "Origin: http://evil.example"], b"", 403),
    ("GET /v1/models", [LOCAL, "Origin: http://localhost"], b"", 200),
    ("GET /v1/models", ["Host: evil.example"], b"", 421),
    ("POST /v1/responses", ["Host: evil.example:80", JSON], BODY, 421),
    ("GET /v1/models", ["Host: evil.example", "Origin: http://evil.example"], b"", 421),
    ("GET /v1/models", ["Host: 127.0.0.1"], b"", 200),
    ("GET /health", ["Host: evil.example", "Origin: null"], b"", 200),
    ("GET /v1/models", [LOCAL, "Origin: https://app.example"], b"", 200),
    ("POST /v1/responses", [LOCAL, JSON, "Origin: https://app.example"], BODY, 200),
    ("OPTIONS /v1/responses", [LOCAL, "Origin: https://app.example"], b"", 204),
]


async def ask(running: Running, line: str, headers: list[str], body: bytes) -> tuple[int, dict[str, str], Any]:
    lines = [f"{line} HTTP/1.1", *headers, *([f"Content-Length: {len(body)}"] if body else [])]
    async with await Client.to(running) as client:
        await client.send("\r\n".join([*lines, "", ""]).encode() + body)
        answer = await client.answer(line.partition(" ")[0])
    return answer.status, answer.headers, json.loads(answer.body) if answer.body else None


@pytest.mark.parametrize(("line", "headers", "body", "status"), REQUESTS)
async def test_server_with_the_headers_of_a_web_page_answers(
    line: str, headers: list[str], body: bytes, status: int
) -> None:
    async with served(allow_origins=("https://app.example",)) as running:
        found, answer, error = await ask(running, line, headers, body)
        assert found == status
        assert running.model.decoded == [] or status == 200
    if status in (403, 415, 421):
        assert error["error"]["message"]
    listed = "Origin: https://app.example" in headers
    assert (answer.get("access-control-allow-origin") == "https://app.example") is listed
