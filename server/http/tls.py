"""TLS on accepted connections, over the standard library's `ssl`: certificates and handshakes."""

import logging
import os
import ssl
from contextlib import suppress
from pathlib import Path

import trio

from server.access import Refusal
from server.protocol.errors import Malformed

PROTOCOLS = ["http/1.1"]
"""Protocols offered by ALPN (RFC 7301)."""
HANDSHAKE_RECORD = b"\x16"
"""First byte of every TLS connection (RFC 8446, 5.1)."""
MAX_FAULT_CHARACTERS = 100
LINGER_SECONDS = 2.0
"""Seconds in which a client that speaks no TLS can read the answer."""

log = logging.getLogger("responsed.http.tls")


class CertificateError(Exception):
    """The certificate or its key cannot be used. The message is one sentence that names the file."""


class TLS:
    """Server side of TLS 1.2 and later."""

    def __init__(self, certfile: Path, keyfile: Path | None = None) -> None:
        """Read the certificate; its file may have the key too. Raises CertificateError."""
        self._context = _context(certfile, keyfile)

    async def handshake(self, stream: trio.SocketStream) -> "trio.SSLStream[trio.SocketStream] | Refusal | None":
        """Return the encrypted stream, or the reason for refusing it; None if the client disconnects."""
        with suppress(OSError, trio.BrokenResourceError):
            first = await stream.socket.recv(1, trio.socket.MSG_PEEK)
            if first == HANDSHAKE_RECORD:
                return await self._shake_hands(stream)
            if first:
                await _refuse_plain(stream)
                return Refusal.PLAIN_HTTP
        return None

    async def _shake_hands(self, stream: trio.SocketStream) -> "trio.SSLStream[trio.SocketStream] | Refusal":
        encrypted = trio.SSLStream(stream, self._context, server_side=True)
        try:
            await encrypted.do_handshake()
        except trio.BrokenResourceError as error:
            log.info("a TLS handshake failed: %s", str(error.__cause__ or error)[:MAX_FAULT_CHARACTERS])
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


def _context(certfile: Path, keyfile: Path | None) -> ssl.SSLContext:
    keyed = keyfile or certfile
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(PROTOCOLS)
    try:
        context.load_cert_chain(certfile, keyed, _no_password)
        if os.stat(keyed).st_mode & 0o007:
            raise CertificateError(f"{keyed} can be read by other users: run `chmod o= {keyed}`")
    except _Encrypted as error:
        raise CertificateError(f"{keyed} is encrypted: store the key without a password") from error
    except ssl.SSLError as error:
        if keyfile is None:
            message = f"{certfile} is no certificate in PEM with its private key: name the key by --ssl-keyfile"
            raise CertificateError(message) from error
        raise CertificateError(f"{certfile} and {keyed} are no certificate in PEM and its private key") from error
    except OSError as error:
        missing = certfile if not os.access(certfile, os.R_OK) else keyed
        raise CertificateError(f"{missing} cannot be read: {error.strerror}") from error
    return context


class _Encrypted(Exception):
    """The key needs a password."""


def _no_password() -> str:
    """Refuse the password that OpenSSL would ask for on the terminal."""
    raise _Encrypted
