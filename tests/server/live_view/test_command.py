"""The command `status`: addresses, keys, JSON, the screen, and its errors."""

import argparse
import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from server.config import Config, ConfigError
from server.live_view import Unreachable
from server.live_view.command import HIDE, HOME, SHOW, add_status, status
from server.live_view.server_address import ServerAddress, from_config, from_url
from tests.support.certificates import certificate
from tests.support.helpers import PATIENCE, encode, exchange, post, served
from tests.support.processes import COMMAND, ROOT

ANN = "ann-0123456789abcdef"


async def run(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    add_status(parser)
    return await trio.to_thread.run_sync(status, parser.parse_args(flags))


async def test_status_of_a_url_is_text_for_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    async with served() as running:
        await post(running, input="Hi")
        await running.app.wait_idle()
        assert await run("--url", running.url) == 0
    head, figures, *_, answer = capsys.readouterr().out.splitlines()
    assert "| scripted (scripted) | 4,096 tokens of context |" in head
    assert figures.startswith("slots 0/2 | waiting 0/16 | 0.0 tokens/s | 0% of prompts cached |")
    assert [answer.split()[at] for at in (3, 4, -1)] == ["127.0.0.1", "completed", "first_prompt"]


async def test_status_reads_key_and_unix_socket_from_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"ann:{ANN}\n")
    path = f"unix:{tmp_path / 'socket'}"
    async with served(hosts=(path,), keys={"ann": ANN}):
        assert await run("--host", path, "--api-key-file", str(keys), "--once", "--json") == 0
        assert await run("--url", path, "--api-key-file", str(keys), "--once", "--json") == 0
        with pytest.raises(ConfigError, match="needs an API key: name a file"):
            await run("--url", path)
        keys.write_text("ann:another-key-0123456\n")
        with pytest.raises(ConfigError, match="does not accept the first key"):
            await run("--url", path, "--api-key-file", str(keys))
    assert [json.loads(line)["slots"] for line in capsys.readouterr().out.splitlines()] == [2, 2]


@pytest.mark.slow
async def test_status_trusts_the_certificate_of_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = certificate(tmp_path)
    async with served(ssl_certfile=files.certfile, ssl_keyfile=files.keyfile) as running:
        flags = ("--port", str(running.port), "--once", "--json")
        assert await run(*flags, "--ssl-certfile", str(files.certfile)) == 0
        with pytest.raises(Unreachable, match="self-signed certificate"):
            await run("--url", f"https://127.0.0.1:{running.port}")
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "scripted"


async def test_status_of_another_server_is_an_error() -> None:
    async with served() as running:
        with pytest.raises(Unreachable, match=r"/v2 answers 404; it is not a responsed server with a status"):
            await run("--url", f"http://127.0.0.1:{running.port}/v2")
        await exchange(running, "POST", "/v1/responses", encode(input="Hi"))


async def test_status_without_a_server_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    remedy = "start it, or name another address with --url"
    with pytest.raises(
        Unreachable, match=rf"no server answers at http://127.0.0.1:{port} \(Connection refused\); {remedy}"
    ):
        await run("--port", str(port))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("box:8080", ServerAddress("box", 8080)),
        ("http://box/v1/", ServerAddress("box", 80)),
        ("https://box/llm/v1", ServerAddress("box", 443, "", True, "/llm")),
        ("http://[::1]:8080", ServerAddress("::1", 8080)),
        ("unix:/run/responsed", ServerAddress(path="/run/responsed")),
        ("unix:///run/responsed", ServerAddress(path="/run/responsed")),
    ],
)
def test_from_url_reads_the_forms_that_people_write(url: str, expected: ServerAddress) -> None:
    assert from_url(url, None) == expected


@pytest.mark.parametrize("url", ["ftp://box", "http://", "http://box:port", ""])
def test_from_url_refuses_other_forms(url: str) -> None:
    with pytest.raises(ConfigError, match="is not http://HOST:PORT, https://HOST:PORT or unix:PATH"):
        from_url(url, None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"hosts": ("0.0.0.0",)}, "http://127.0.0.1:8080"),
        ({"hosts": ("::", "box")}, "http://[::1]:8080"),
        ({"hosts": ("box",), "ssl_certfile": Path("a.pem")}, "https://box:8080"),
        ({"hosts": ("unix:/run/a",), "port": 0}, "unix:/run/a"),
    ],
)
def test_from_config_is_the_first_address_seen_from_this_machine(settings: dict[str, Any], expected: str) -> None:
    assert str(from_config(Config(**settings))) == expected


def test_from_config_of_any_free_port_asks_for_the_url() -> None:
    with pytest.raises(ConfigError, match="with --url"):
        from_config(Config(port=0))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--json"], ["--once"]])
async def test_status_whose_reader_has_left_ends_in_silence(flags: list[str]) -> None:
    async with served() as running:
        command = [*COMMAND, "status", "--port", str(running.port), *flags]
        read, write = os.pipe()
        os.close(read)
        done = await trio.run_process(command, cwd=ROOT, stdout=write, capture_stderr=True, check=False)
        os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.slow
async def test_status_on_a_terminal_redraws_until_ctrl_c() -> None:
    async with served() as running:
        output, code = await trio.to_thread.run_sync(watch, running.port)
    assert (output.startswith(SHOW + HOME + "responsed "), output.endswith(HIDE), code) == (True, True, 0)
    assert output.count(HOME) >= 2


def watch(port: int) -> tuple[str, int]:
    """Run the command on a terminal until it has drawn twice, press Ctrl-C, and return its output and exit status."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "status", "--port", str(port)]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        output, deadline, interrupted = "", time.monotonic() + PATIENCE, False
        with suppress(OSError):  # the end of a terminal
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 0.1)[0]:
                    output += os.read(ours, 65536).decode()
                if output.count(HOME) >= 2 and not interrupted:
                    process.send_signal(signal.SIGINT)
                    interrupted = True
        code = process.wait(PATIENCE)
    os.close(ours)
    return output, code
