"""TLS: certificates, handshakes, and answers over encrypted connections."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from server.config.config import Config
from server.config.file import ConfigError
from server.http import tls
from server.http.connection import Connection
from server.http.drain import Drain
from server.http.exchange import Receive, Scope, Send
from server.listening.certificates import CertificateError, tls_context
from server.listening.options import HTTPLimits, HTTPOptions, http_options
from tests.support.certificates import DATA, Certificate, certificate, tls_client
from tests.support.helpers import PATIENCE, Client, PacedModel, encode, exchange, request, served

HEALTH = request("GET", "/health")


def encrypted(folder: Path) -> tuple[Certificate, dict[str, Any]]:
    """Return a certificate, and the settings that use it."""
    found = certificate(folder)
    return found, {"ssl_certfile": found.certfile, "ssl_keyfile": found.keyfile}


@pytest.mark.slow
async def test_stream_over_tls_has_the_events_of_a_plain_one(tmp_path: Path) -> None:
    found, tls = encrypted(tmp_path)
    text = "Hello, " * 50_000  # larger than any buffer, in both directions
    async with served(**tls) as running, await tls_client(running.port, found.client_context) as client:
        await client.create(input="Hi", stream=True)
        streamed = await client.answer()
        await client.request("POST", "/v1/responses/input_tokens", encode(input=text))
        counted = await client.answer()
    assert (streamed.events[-1]["type"], streamed.text) == ("response.completed", "Hi")
    assert counted.status == 200


async def test_connection_that_closes_says_so_by_close_notify(tmp_path: Path) -> None:
    found, tls = encrypted(tmp_path)
    async with served(**tls) as running, await tls_client(running.port, found.client_context) as client:
        await client.request("GET", "/health", None, "Connection: close")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""  # a missing close_notify raises BrokenResourceError


VERSIONS = [(ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_1, None)]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(("version", "negotiated"), VERSIONS)
async def test_versions_before_tls_1_2_are_refused(
    version: ssl.TLSVersion, negotiated: str | None, tmp_path: Path
) -> None:
    found, tls = encrypted(tmp_path)
    context = found.client_context
    context.set_ciphers("ALL:@SECLEVEL=0")  # the client itself would refuse old versions
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with served(**tls) as running:
        plain = await trio.open_tcp_stream("127.0.0.1", running.port)
        stream = trio.SSLStream(plain, context, server_hostname="localhost")
        if negotiated is None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.do_handshake()
        else:
            await stream.do_handshake()
            assert (stream.version(), stream.selected_alpn_protocol()) == (negotiated, "http/1.1")
        await trio.aclose_forcefully(stream)


async def test_plain_request_to_a_tls_port_gets_an_answer_that_says_so(tmp_path: Path) -> None:
    _, tls = encrypted(tmp_path)
    async with served(**tls) as running:
        answer = await exchange(running, "POST", "/v1/responses", encode(input="x" * 100_000))
    assert (answer.status, answer.headers["connection"], answer.json["error"]["message"]) == (
        400,
        "close",
        "This port speaks HTTPS; use https:// in the URL.",
    )


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_handshake_that_stalls_ends(sent: bytes, tmp_path: Path) -> None:
    _, tls = encrypted(tmp_path)
    async with served(**tls, keep_alive_timeout_seconds=0.1) as running, await Client.to(running) as client:
        await client.send(sent)
        with trio.fail_after(PATIENCE):
            assert await client.rest() == b""


@pytest.mark.slow
async def test_handshake_that_stalls_gives_its_place_to_another(tmp_path: Path) -> None:
    found, tls = encrypted(tmp_path)
    async with served(**tls, max_connections=1) as running, await Client.to(running) as stalled:
        await stalled.send(b"\x16\x03\x01")
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with await tls_client(running.port, found.client_context) as client:
            await client.request("GET", "/health")
            assert (await client.answer()).status == 200


async def test_client_that_leaves_without_close_notify_frees_its_slot(tmp_path: Path) -> None:
    found, tls = encrypted(tmp_path)
    model = PacedModel(n_slots=1)
    async with served(model, **tls) as running:
        model.hold()
        client = await tls_client(running.port, found.client_context)
        await client.create(input="Hello", stream=True)
        await model.wait_begun(1)
        await client.leave()
        model.allow(1)  # the decode in progress
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()


@pytest.mark.slow
async def test_client_that_never_reads_counts_as_disconnected(tmp_path: Path) -> None:
    found = certificate(tmp_path)
    cut = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(10_000_000), "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        cut.set()

    async def serve(stream: trio.SocketStream) -> None:
        encrypted = await tls.handshake(stream, tls_context(found.certfile, found.keyfile))
        assert isinstance(encrypted, trio.SSLStream)
        await Connection(app, encrypted, Drain(), HTTPOptions(HTTPLimits(write_seconds=0.1))).run()

    ours, theirs = socket.socketpair()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery, trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            nursery.start_soon(serve, stream)
            plain = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
            client = trio.SSLStream(plain, found.client_context, server_hostname="localhost")
            await client.send_all(HEALTH)
            await cut.wait()
            await trio.aclose_forcefully(client)


async def test_unix_socket_stays_plain(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    _, tls = encrypted(tmp_path)
    async with served(**tls, hosts=(f"unix:{path}",)):
        stream = await trio.open_unix_socket(path)
        async with Client(stream) as client:
            await client.request("GET", "/health")
            assert (await client.answer()).status == 200


@pytest.mark.slow
async def test_garbage_instead_of_a_handshake_ends_its_connection_only(tmp_path: Path) -> None:
    found, tls = encrypted(tmp_path)
    random = Random(0)
    async with served(**tls) as running:
        for _ in range(50):
            async with await Client.to(running) as client:
                with suppress(trio.BrokenResourceError):  # the server may reset
                    await client.send(b"\x16" + random.randbytes(random.randrange(300)))
                    await client.half_close()
                    await client.rest()
        async with await tls_client(running.port, found.client_context) as client:
            await client.request("GET", "/health")
            assert (await client.answer()).status == 200


def test_certificate_in_one_file_with_its_key_is_read(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes((DATA / "first.crt").read_bytes() + (DATA / "first.key").read_bytes())
    both.chmod(0o600)
    tls_context(both)


ENCRYPTED = """-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,5DD65A7969ACA7E73B756DEFB3A6CCEB

3TtPv8iDcdhW9yBl0SwR/Kh1KvvaHIDVF7bFuXwqBOHM0ybnwLVb6gKVMwSXqJCC
u/+dMiCmwf6vfpMxGnQpNF4Fy5QJgYLbOUM7Vw/eSzOR3yzi4pC4w+aOhqaIYvmK
k6nuZIixHDWwAGOrYdtEx/zqWDo9AlMek31WpMjd48o=
-----END EC PRIVATE KEY-----
"""
OTHER = (DATA / "second.key").read_text()
FAULTS: list[tuple[str, str, int, str]] = [
    ("key", "", 0o604, "{key} can be read by other users: run `chmod o= {key}`"),
    ("key", ENCRYPTED, 0o600, "{key} is encrypted: store the key without a password"),
    ("key", OTHER, 0o600, "{crt} and {key} are not a PEM certificate and its private key"),
    ("key", "nonsense", 0o600, "{crt} and {key} are not a PEM certificate and its private key"),
    ("crt", "nonsense", 0o600, "{crt} and {key} are not a PEM certificate and its private key"),
]


@pytest.mark.parametrize(("file", "text", "mode", "message"), FAULTS)
def test_certificate_that_cannot_be_used_is_refused_by_its_file(
    file: str, text: str, mode: int, message: str, tmp_path: Path
) -> None:
    found = certificate(tmp_path)
    path = {"crt": found.certfile, "key": found.keyfile}[file]
    path.chmod(mode)
    if text:
        path.write_text(text)
    with pytest.raises(CertificateError) as error:
        tls_context(found.certfile, found.keyfile)
    assert str(error.value) == message.format(crt=found.certfile, key=found.keyfile)


@pytest.mark.parametrize(("missing", "flag"), [("crt", "--ssl-certfile"), ("key", "--ssl-keyfile")])
def test_certificate_that_is_missing_is_refused_by_its_flag_and_file(missing: str, flag: str, tmp_path: Path) -> None:
    found = certificate(tmp_path)
    path = {"crt": found.certfile, "key": found.keyfile}[missing]
    path.unlink()
    with pytest.raises(CertificateError, match=f"^{flag}: {path} cannot be read: No such file or directory$"):
        tls_context(found.certfile, found.keyfile)


def test_certificate_without_its_key_is_refused_with_the_remedy() -> None:
    with pytest.raises(CertificateError, match=r"with its private key: name the key with --ssl-keyfile$"):
        tls_context(DATA / "first.crt")


def test_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--ssl-keyfile needs --ssl-certfile: name the certificate of the key$"):
        http_options(Config(ssl_keyfile=Path("key")))
