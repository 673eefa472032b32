"""nginx and Caddy in front of the server, with the files of server/docs/operations.md."""

import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.server.store.cluster import Cluster
from tests.support.certificates import Certificate, certificate, tls_client
from tests.support.helpers import PATIENCE, Answer, Client, PacedModel, encode, post, served
from tests.support.websockets import SocketClient, handshake

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "server" / "docs" / "operations.md"
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {example}
}}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
}}
{example}
"""
UNIX = {"nginx": "unix:{path}", "caddy": "unix/{path}"}
"""Notation of a unix socket."""


def example(program: str, *upstreams: str) -> str:
    """Return the page's file, with the addresses of one server, or of two behind a balancer."""
    text, balancer = map(str, re.findall(rf"```{program}\n(.*?)```", PAGE.read_text(), re.DOTALL))
    if len(upstreams) == 2:
        text = re.sub(r"upstream \w+ \{.*?\n\}\n", balancer, text, flags=re.DOTALL) if program == "nginx" else balancer
    addresses = ["127.0.0.1:8080"] if len(upstreams) == 1 else ["127.0.0.1:8081", "127.0.0.1:8082"]
    for address, upstream in zip(addresses, upstreams, strict=True):
        assert address in text
        text = text.replace(address, upstream)
    return text


def config(program: str, folder: Path, port: int, text: str, found: Certificate) -> Path:
    """Write a file of the page, with the address and the certificate of the test."""
    if program == "nginx":
        text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
        text = re.sub(r"ssl_certificate \S+;", f"ssl_certificate {found.certfile};", text)
        text = re.sub(r"ssl_certificate_key \S+;", f"ssl_certificate_key {found.keyfile};", text)
        text = NGINX.format(folder=folder, example=text)
    else:
        text = text.replace("llm.example {", f"https://localhost:{port} {{\n    tls {found.certfile} {found.keyfile}")
        text = CADDY.format(example=text)
    path = folder / "config"
    path.write_text(text)
    return path


@asynccontextmanager
async def proxy(program: str, folder: Path, found: Certificate, *upstreams: str) -> AsyncIterator[int]:
    """Yield the port of a proxy that accepts connections."""
    executable = shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if executable is None:
        pytest.skip(f"{program} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = config(program, folder, port, example(program, *upstreams), found)
    arguments = ["-c", str(path)] if program == "nginx" else ["run", "--adapter", "caddyfile", "--config", str(path)]
    environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    with (folder / "log").open("wb") as log:
        process = await trio.lowlevel.open_process([executable, *arguments], env=environ, stdout=log, stderr=log)
        try:
            with trio.fail_after(PATIENCE):
                while not await accepts(port):
                    assert process.poll() is None, (folder / "log").read_text()
                    await trio.sleep(0.05)
            yield port
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


async def accepts(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("program", ["nginx", "caddy"])
async def test_example_passes_frames_one_by_one_and_hang_ups(program: str, kind: str, tmp_path: Path) -> None:
    found = certificate(tmp_path)
    socket_path = tmp_path / "socket"
    model = PacedModel(n_slots=1)
    hosts = (f"unix:{socket_path}",) if kind == "unix" else ("127.0.0.1",)
    async with served(model, hosts=hosts, allow_hosts=("llm.example",), trust_proxies=("127.0.0.1", "unix")) as running:
        upstream = UNIX[program].format(path=socket_path) if kind == "unix" else f"127.0.0.1:{running.port}"
        async with proxy(program, tmp_path, found, upstream) as port:
            model.hold()
            client = await tls_client(port, found.client_context)
            await client.create(input="Hello", stream=True)
            model.allow(1)
            await read_frame(client, b'"delta":"H"')  # while the model waits, nothing else can push the frame on
            model.allow(1)
            await read_frame(client, b'"delta":"e"')
            await client.leave()
            model.allow(1)
            with trio.fail_after(PATIENCE):
                await running.app.wait_idle()
            model.go()
            async with await tls_client(port, found.client_context) as another:
                await another.request("POST", "/v1/responses", encode(input="Hi"))
                assert (await another.answer()).text == "Hi"


@pytest.mark.parametrize("program", ["nginx", "caddy"])
async def test_example_passes_websockets(program: str, tmp_path: Path) -> None:
    found = certificate(tmp_path)
    model = PacedModel(n_slots=1)
    async with (
        served(model, allow_hosts=("llm.example",), trust_proxies=("127.0.0.1",)) as running,
        proxy(program, tmp_path, found, f"127.0.0.1:{running.port}") as port,
    ):
        model.hold()
        client = SocketClient(await tls_client(port, found.client_context))
        await client.http.send(handshake())
        assert (await client.http.head()).status == 101
        await client.create(input="Hello")
        model.allow(1)
        await client.until("response.output_text.delta")
        await client.http.leave()
        model.allow(1)
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()


@pytest.mark.parametrize("program", ["nginx", "caddy"])
async def test_example_balances_two_servers_on_one_database(program: str, cluster: Cluster, tmp_path: Path) -> None:
    found, url, hosts = certificate(tmp_path), cluster.create().url, ("llm.example",)
    models = [PacedModel(), PacedModel()]
    async with (
        served(models[0], store=url, allow_hosts=hosts) as a,
        served(models[1], store=url, allow_hosts=hosts) as b,
        proxy(program, tmp_path, found, *(f"127.0.0.1:{each.port}" for each in (a, b))) as port,
    ):

        async def ask(method: str, path: str, **body: object) -> Answer:
            async with await tls_client(port, found.client_context) as client:
                await client.request(method, path, encode(**body) if method == "POST" else None)
                return await client.answer()

        for model in models:
            model.hold()
        asked = {"input": "Hello", "background": True}
        made = [(await post(each, **asked)).json["id"] for each in (a, b, a, b)]
        assert (await ask("POST", f"/v1/responses/{made[0]}/cancel")).json["status"] == "cancelled"
        async with trio.open_nursery() as nursery:
            streams: list[Answer] = []

            async def follow(response_id: str) -> None:
                streams.append(await ask("GET", f"/v1/responses/{response_id}?stream=true"))

            for response_id in made[1:] * 2:
                nursery.start_soon(follow, response_id)
            for model in models:
                model.go()
        assert [each.events[-1]["type"] for each in streams] == ["response.completed"] * 6
        assert sorted(each.events[0]["response"]["id"] for each in streams) == sorted(made[1:] * 2)
        assert (await ask("POST", "/v1/responses", input="Hi")).text == "Hi"


async def read_frame(client: Client, part: bytes) -> None:
    """Read the answer on to a frame with these bytes. Proxies divide chunks as they like."""
    with trio.fail_after(PATIENCE):
        await client.read_past(part)
