"""Clients that stop reading and stay connected: what the log, the store and the slots say, and what SIGTERM gives."""

import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import wire
from tests.support.helpers import PATIENCE, Client, PacedModel, Running, encode, get, post, served, text
from tests.support.websockets import SocketClient, handshake

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {"top_logprobs": 20, "include": ["message.output_text.logprobs"], "input": "Go."}
"""Request whose events are so long that few fit into the buffers of a socket."""


async def narrow(running: Running, path: Path | None = None) -> Client:
    """Return a client whose socket has room for little of an answer. `path`: of a unix socket."""
    connected = trio.socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await connected.connect(str(path) if path else ("127.0.0.1", running.port))
    return Client(trio.SocketStream(connected))


async def sse(client: Client) -> None:
    await client.create(**LONG, stream=True)


async def chat(client: Client) -> None:
    message = {"role": "user", "content": "Go."}
    fields = {"messages": [message], "stream": True, "logprobs": True, "top_logprobs": 20}
    await client.request("POST", "/v1/chat/completions", encode(**fields))


async def websocket(client: Client) -> None:
    await client.send(handshake())
    await client.head()
    await SocketClient(client).create(**LONG)


@pytest.mark.parametrize("ask", [sse, *(pytest.param(ask, marks=pytest.mark.slow) for ask in (chat, websocket))])
async def test_client_that_stops_reading_ends_its_answer_and_frees_its_slot(
    ask: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = PacedModel(lambda prompt: b"x" * 3500, n_slots=1)
    settings: dict[str, Any] = {"write_timeout_seconds": 0.3, "state": tmp_path}
    with caplog.at_level("INFO", "responsed.http"):
        async with served(model, **settings) as running, await narrow(running) as stuck:
            model.hold()
            await ask(stuck)
            await model.wait_begun(1)
            model.go()
            with trio.fail_after(PATIENCE):
                await running.app.wait_idle()
            assert (await post(running, input="Hi", max_output_tokens=1)).status == 200
            lines = [
                record.getMessage() for record in caplog.records if "client stopped reading" in record.getMessage()
            ]
            (line,) = [line for line in lines if "first token" in line]
            assert " cancelled (client stopped reading): " in line
            if ask is not chat:
                stored = (await get(running, f"/v1/responses/{line.partition(' ')[0]}")).json
                assert stored["status"] == "cancelled"
                assert set(text(stored)) == {"x"}
                assert 0 < len(text(stored)) <= stored["usage"]["output_tokens"] < 3500


@pytest.mark.parametrize(("unix", "tokens"), [pytest.param(False, 2000, marks=pytest.mark.slow), (True, 400)])
async def test_stuck_reader_at_sigterm_finds_its_terminal_event_once_it_reads_again(
    unix: bool, tokens: int, tmp_path: Path
) -> None:
    """Nobody reads before the server has ended. The kernel's buffers are larger for TCP than for unix sockets."""
    model, path = PacedModel(lambda prompt: b"x" * 3000, n_slots=1), tmp_path / "socket"
    hosts = ("127.0.0.1", f"unix:{path}")
    async with served(model, state=tmp_path, hosts=hosts, shutdown_timeout_seconds=0.2) as running:
        model.hold()
        stuck = await narrow(running, path if unix else None)
        await stuck.create(input="Go.", stream=True)
        model.allow(tokens)
        await model.wait_begun(tokens)
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()
        model.go()
    async with stuck:
        await stuck.head()
        events = wire.events(await stuck.rest_of_stream())
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
