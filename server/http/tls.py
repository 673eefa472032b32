"""TLS on accepted connections: handshakes."""

import logging
import ssl
from contextlib import suppress

import trio

from server.access import Refusal
from server.http.sockets import peer_of
from server.protocol.errors import Malformed

HANDSHAKE_RECORD = b"\x16"
"""First byte of every TLS connection (RFC 8446, 5.1)."""
MAX_FAULT_CHARACTERS = 100
"""Characters of OpenSSL's error in the log."""
LINGER_SECONDS = 2.0
"""Seconds in which a client that speaks no TLS can read the answer."""

log = logging.getLogger("responsed.http.tls")


async def handshake(
    stream: trio.SocketStream, context: ssl.SSLContext
) -> "trio.SSLStream[trio.SocketStream] | Refusal | None":
    """Return the encrypted stream, or the reason for refusing it; None if the client disconnects."""
    with suppress(OSError, trio.BrokenResourceError):
        first = await stream.socket.recv(1, trio.socket.MSG_PEEK)
        if first == HANDSHAKE_RECORD:
            return await _shake_hands(stream, context)
        if first:
            await _refuse_plain(stream)
            return Refusal.PLAIN_HTTP
    return None


async def _shake_hands(
    stream: trio.SocketStream, context: ssl.SSLContext
) -> "trio.SSLStream[trio.SocketStream] | Refusal":
    encrypted = trio.SSLStream(stream, context, server_side=True)
    try:
        await encrypted.do_handshake()
    except trio.BrokenResourceError as error:
        client, fault = peer_of(stream.socket), str(error.__cause__ or error)[:MAX_FAULT_CHARACTERS]
        log.info("a TLS handshake of %s failed: %s", client[0] if client else "a client that has left", fault)
        return Refusal.HANDSHAKE
    return encrypted


async def _refuse_plain(stream: trio.SocketStream) -> None:
    """Answer a client that speaks plain HTTP, and discard its request so that it can read the answer."""
    body = Malformed("This port speaks HTTPS; use https:// in the URL.", status=400).body()
    head = (
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with trio.move_on_after(LINGER_SECONDS):
        await stream.send_all(head.encode() + body)
        await stream.send_eof()
        while await stream.receive_some():
            pass
