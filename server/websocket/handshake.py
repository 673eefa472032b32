"""Opening handshake (RFC 6455, 4.2). Pure."""

import base64
import binascii
from collections.abc import Iterable

from wsproto.utilities import generate_accept_token, normed_header_dict

from server.protocol.errors import InvalidRequest, UpgradeRequired

VERSION = b"13"
KEY_BYTES = 16


def accept_headers(version: str, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of the 101 response to a GET. Names of `headers` are in lower case; `version`: of HTTP.

    No extension and no subprotocol is accepted. Raises UpgradeRequired, InvalidRequest.
    """
    fields = normed_header_dict(list(headers))
    upgrades = "websocket" in _tokens(fields, b"upgrade") and "upgrade" in _tokens(fields, b"connection")
    if not upgrades or version != "1.1":
        raise UpgradeRequired("GET opens a WebSocket here (RFC 6455): connect by ws://, or use POST over HTTP.")
    if fields.get(b"sec-websocket-version", b"").strip() != VERSION:
        raise UpgradeRequired("The server speaks version 13 of WebSocket: send `Sec-WebSocket-Version: 13`.")
    key = fields.get(b"sec-websocket-key", b"").strip()
    if not _is_key(key):
        raise InvalidRequest("`Sec-WebSocket-Key` must be 16 bytes in base64, once.")
    if fields.get(b"content-length", b"0").strip() != b"0" or b"transfer-encoding" in fields:
        raise InvalidRequest("A request that opens a WebSocket must have no body.")
    return [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", generate_accept_token(key)),
    ]


def _tokens(fields: dict[bytes, bytes], name: bytes) -> set[str]:
    """Return the tokens of a header that lists them, in lower case."""
    return {token.strip().lower() for token in fields.get(name, b"").decode("latin-1").split(",")}


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False
