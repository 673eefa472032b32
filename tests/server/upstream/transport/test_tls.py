"""TLS of upstreams: which certificates are trusted, and how each failure is named."""

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from server.upstream.discovery import find_models
from server.upstream.forms import ChatForm
from server.upstream.transport import Address, ClientTimeouts, UpstreamClient, UpstreamFault
from tests.server.upstream.scripted_upstream import HEAD, TIMEOUTS, chunked
from tests.support.certificates import Certificate, certificate

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def encrypted(
    made: Certificate | None, serve: Callable[[trio.abc.Stream], Awaitable[None]]
) -> AsyncIterator[int]:
    """A server with a certificate, or one without TLS, on all addresses of the loopback interface."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if made is not None:
        context.load_cert_chain(made.certfile, made.keyfile)

    async def connected(stream: trio.SocketStream) -> None:
        whole = stream if made is None else trio.SSLStream(stream, context, server_side=True)
        try:
            await whole.receive_some()
            await serve(whole)
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(whole)

    async with trio.open_nursery() as nursery:
        listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]]
        port = listeners[0].socket.getsockname()[1]
        listeners += await trio.open_tcp_listeners(port, host="127.0.0.2")
        nursery.start_soon(trio.serve_listeners, connected, listeners)
        yield port
        nursery.cancel_scope.cancel()


async def answer(stream: trio.abc.Stream) -> None:
    await stream.send_all(OK)


async def fetched(url: str) -> bytes:
    client = UpstreamClient(Address.of(url), TIMEOUTS)
    try:
        async with client.request("GET", "/v1/models") as found:
            return await found.read(100)
    finally:
        await client.close_idle()


@pytest.mark.parametrize(
    ("name", "trusted", "host", "cause"),
    [
        ("first", True, "localhost", None),
        ("first", True, "127.0.0.1", None),
        ("first", False, "localhost", "its certificate is not trusted: self-signed certificate"),
        ("expired", True, "localhost", "its certificate is not trusted: certificate has expired"),
        ("first", True, "127.0.0.2", "its certificate is not trusted: IP address mismatch"),
        (None, False, "localhost", "it speaks no TLS: use an http URL"),
    ],
)
async def test_certificate_is_verified_and_a_failure_named(
    name: str | None, trusted: bool, host: str, cause: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = None if name is None else certificate(tmp_path, name)
    if made is not None and trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(made.certfile))
    async with encrypted(made, answer) as port:
        if cause is None:
            assert await fetched(f"https://{host}:{port}") == b"ok"
            return
        with pytest.raises(UpstreamFault) as caught:
            await fetched(f"https://{host}:{port}")
    assert f"https://{host}:{port} cannot be reached (TLS: {cause}" in str(caught.value)
    assert (caught.value.kind, caught.value.away) == ("connect", True), "it may be renewed"


async def test_http_url_for_tls_is_named(tmp_path: Path) -> None:
    """The server closes the connection without an alert."""
    async with encrypted(certificate(tmp_path), answer) as port:
        (found,) = await find_models(
            [UpstreamClient(Address.of(f"http://localhost:{port}"), TIMEOUTS)], None, ChatForm().probe
        )
    assert found.error.endswith("). If it speaks TLS, use an https URL.")
    assert found.away, "an upstream that starts may close connections too"


async def test_end_of_tls_within_an_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the alert that TLS wants, as many servers do."""

    async def half(stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD + chunked(b"data: "))

    made = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certfile))
    async with encrypted(made, half) as port:
        with pytest.raises(UpstreamFault, match=r"ended its stream .* without sending complete message body"):
            await fetched(f"https://localhost:{port}")


@pytest.mark.slow
async def test_connection_that_does_not_open_times_out() -> None:
    """A listener that accepts nothing: its handshake never comes."""
    with trio.socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        address = Address.of(f"https://127.0.0.1:{silent.getsockname()[1]}")
        client = UpstreamClient(address, ClientTimeouts(connect=0.2, first_byte=math.inf, idle=math.inf))
        with pytest.raises(UpstreamFault, match=r"no connection within 0\.2 s") as caught:
            async with client.request("GET", "/"):
                pass
    assert (caught.value.kind, caught.value.retries, caught.value.unhealthy) == ("connect", True, True)
