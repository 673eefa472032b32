"""Certificates of `localhost` for tests, and a client that trusts them."""

import shutil
import ssl
from pathlib import Path

import trio
from msgspec import Struct

from tests.support.helpers import Client

DATA = Path(__file__).parents[1] / "data" / "tls"


class Certificate(Struct, frozen=True):
    certfile: Path
    keyfile: Path

    @property
    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certfile))


def certificate(folder: Path, name: str = "first") -> Certificate:
    """Return a certificate whose key only its owner can read; git keeps no such modes."""
    copied = Certificate(folder / "server.crt", folder / "server.key")
    shutil.copy(DATA / f"{name}.crt", copied.certfile)
    shutil.copy(DATA / f"{name}.key", copied.keyfile)
    copied.keyfile.chmod(0o600)
    return copied


async def tls_client(port: int, context: ssl.SSLContext) -> Client:
    """Return a client behind its handshake. Raises trio.BrokenResourceError if that fails."""
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    encrypted = trio.SSLStream(plain, context, server_hostname="localhost")
    await encrypted.do_handshake()
    return Client(encrypted)
