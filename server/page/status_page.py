"""`GET /`: the status page, one file that loads nothing else.

The file has no data, so it needs no key: its script asks for one, and calls `/status` like any client.
"""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from msgspec import Struct

from server.http import Exchange


class PageFile(Struct, frozen=True):
    body: bytes
    etag: str
    policy: str
    """Content-Security-Policy."""


@cache
def page() -> PageFile:
    """Return the page. The file is read at the first request."""
    body = files("server.page").joinpath("index.html").read_bytes()
    return PageFile(body, f'"{sha256(body).hexdigest()[:32]}"', policy(body))


def policy(body: bytes) -> str:
    """Return a policy that allows the page's own style and script, and requests to this server only.

    Hashes allow the two elements and nothing that an injection would add (Content Security Policy Level 3, 2.3.1).
    """
    hashes = {
        name: " ".join(f"'sha256-{b64encode(sha256(text).digest()).decode()}'" for text in _texts(body, name))
        for name in (b"style", b"script")
    }
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {hashes[b'style']}",
            f"script-src {hashes[b'script']}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _texts(body: bytes, element: bytes) -> list[bytes]:
    return re.findall(rb"<%b>(.*?)</%b>" % (element, element), body, re.DOTALL)


class StatusPage:
    async def retrieve(self, exchange: Exchange) -> None:
        """Answer with the page, or 304 if the browser has it (RFC 9110, 13.1.2)."""
        present = page()
        headers = [
            (b"etag", present.etag.encode()),
            (b"cache-control", b"no-cache"),
            (b"content-security-policy", present.policy.encode()),
        ]
        if _matches(exchange.header(b"if-none-match") or "", present.etag):
            return await exchange.answer(304, b"", headers)
        headers += [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        return await exchange.answer(200, present.body, headers)


def _matches(condition: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return etag in tags or "*" in tags
