"""Identifiers that a caller gives to its request, for the log and against loops. Pure."""

import re

from server.protocol.errors import InvalidRequest

FRONTS = b"x-responsed-fronts"
"""Header with the names of the fronts that a request has passed, as `Via` has those of proxies (RFC 9110, 7.6.3)."""
MAX_FRONTS = 16
_FRONT = re.compile(r"[0-9a-f]{16}")
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""Header of W3C Trace Context, level 1, 3.2: version, trace id, parent id, flags. Later versions may have more."""
_CLIENT_REQUEST_ID = re.compile(r"[\x20-\x7e]{0,512}")
"""Value of X-Client-Request-Id that OpenAI accepts; others get a 400."""


def trace_id(traceparent: str | None) -> str:
    """Return the trace id of a `traceparent` header; empty if the header is missing or invalid."""
    match = _TRACEPARENT.fullmatch((traceparent or "").strip())
    return "" if match is None or (match[1] == "00" and match[3]) else match[2]


def fronts(value: str | None) -> tuple[str, ...]:
    """Return the names in a `FRONTS` header; nothing that is none."""
    return tuple(_FRONT.findall(value or "")[-MAX_FRONTS:])


def client_request_id(value: str | None) -> str:
    """Return the value of an X-Client-Request-Id header; empty without one. Raises InvalidRequest."""
    if _CLIENT_REQUEST_ID.fullmatch(value or "") is None:
        raise InvalidRequest("`X-Client-Request-Id` must be ASCII text of 512 characters at most.")
    return value or ""
