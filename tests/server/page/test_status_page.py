"""The status page over HTTP: its headers, its cache, and its access rules. `test_in_browser` opens it."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from server.page.status_page import page, policy
from tests.support.helpers import exchange, get, served

ANN = "ann-0123456789abcdef"
FILE = Path(__file__).parents[3] / "server" / "page" / "index.html"


async def test_page_is_the_file_with_a_strict_policy() -> None:
    async with served(keys={"ann": ANN}) as running:
        answer = await get(running, "/")
    assert (answer.status, answer.body) == (200, FILE.read_bytes())
    headers = dict(answer.headers)
    for name in ("date", "x-request-id"):
        del headers[name]
    assert headers == {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(answer.body)),
        "content-security-policy": policy(answer.body),
        "cache-control": "no-cache",
        "etag": page().etag,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def test_policy_allows_the_own_style_and_script_only() -> None:
    found = policy(b"<style>a{}</style><script>b()</script>")
    assert found == (
        "default-src 'none'; "
        f"style-src 'sha256-{digest(b'a{}')}'; script-src 'sha256-{digest(b'b()')}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def digest(text: bytes) -> str:
    return b64encode(sha256(text).digest()).decode()


async def test_head_of_the_page_has_no_body() -> None:
    async with served() as running:
        answer = await exchange(running, "HEAD", "/")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(FILE.stat().st_size), b"")


@pytest.mark.parametrize(
    ("condition", "status"),
    [("{etag}", 304), ("W/{etag}", 304), ('"other", {etag}', 304), ("*", 304), ('"other"', 200), ("", 200)],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_page_that_the_browser_has_is_not_sent_again(method: str, condition: str, status: int) -> None:
    async with served() as running:
        answer = await exchange(running, method, "/", None, f"If-None-Match: {condition.format(etag=page().etag)}")
    assert (answer.status, answer.headers["etag"]) == (status, page().etag)
    assert bool(answer.body) == (status == 200 and method == "GET")


async def test_page_needs_no_key_and_obeys_host_and_origin() -> None:
    async with served(keys={"ann": ANN}) as running:
        assert (await get(running, "/")).status == 200
        assert (await exchange(running, "POST", "/", b"{}")).status == 405
        assert (await exchange(running, "GET", "/", None, "Origin: http://evil.example")).status == 403
        options = await exchange(running, "OPTIONS", "/")
    assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


def test_page_is_one_file_that_names_no_other_address() -> None:
    text = FILE.read_text()
    addresses = set(re.findall(r"https?://[^'\" )]+", text)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text) == []
    assert re.findall(r"""fetch\("([^"]*)""", text) == ["status", "v1/responses"]
    assert len(re.findall("<style>", text)) == len(re.findall("<script>", text)) == 1
    assert "innerHTML" not in text
    assert "localStorage" not in text
    assert max(map(len, text.splitlines())) <= 300
