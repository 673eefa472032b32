"""Notifications to systemd: status, watchdog, and more time for a slow start."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from server.cli import main
from server.cli.console.exit_status import ExitStatus
from server.config.config import Config
from server.daemon import daemon
from server.listening.sockets import listening_sockets
from server.systemd import Notifier
from server.systemd import notifier as notifier_module
from tests.support.helpers import NAME, PATIENCE, PacedModel, encode, exchange, wired


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(PATIENCE)
        yield channel


def environ(channel: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": channel.getsockname(), **more}


OWN = str(os.getpid())
WATCHDOGS = [
    ({}, 0.0),
    ({"WATCHDOG_USEC": "60000000"}, 60.0),
    ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": OWN}, 60.0),
    ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0.0),
    ({"WATCHDOG_USEC": "", "WATCHDOG_PID": OWN}, 0.0),
    ({"WATCHDOG_USEC": "x", "WATCHDOG_PID": OWN}, 0.0),
]


@pytest.mark.parametrize(("variables", "seconds"), WATCHDOGS)
def test_watchdog_is_expected_of_this_process_only(variables: dict[str, str], seconds: float) -> None:
    assert Notifier(variables).watchdog_seconds == seconds


def test_status_is_sent_when_it_changes(channel: socket.socket) -> None:
    notifier = Notifier(environ(channel))
    for text in ("a", "a", "b", "a"):
        notifier.status(text)
    assert [channel.recv(100) for _ in range(3)] == [b"STATUS=a", b"STATUS=b", b"STATUS=a"]


@pytest.mark.slow
def test_manager_that_reads_nothing_does_not_stop_the_server(channel: socket.socket) -> None:
    """The queue of its socket is full after 10 to 512 messages (net.unix.max_dgram_qlen)."""
    notifier = Notifier(environ(channel))
    ended = threading.Event()

    def report() -> None:
        for number in range(600):
            notifier.status(str(number))
            notifier.alive()
        notifier.notify("STOPPING=1", seconds=0.05)
        ended.set()

    threading.Thread(target=report, daemon=True).start()
    assert ended.wait(PATIENCE)
    assert channel.recv(100) == b"STATUS=0"


def test_slow_start_asks_for_more_time_until_it_ends(channel: socket.socket) -> None:
    with Notifier(environ(channel)).extending("loading m.gguf"):
        assert channel.recv(100) == b"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=loading m.gguf"
    channel.setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.recv(100)


def test_slow_start_reports_each_new_percentage(channel: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "SHARE_SECONDS", 0.001)
    shares = iter([0.0, 0.0, 0.004, 0.256, 0.256, 0.5, 1.0, 1.7])
    with Notifier(environ(channel)).extending("loading m.gguf", lambda: next(shares, 1.0)):
        messages = [channel.recv(100).decode() for _ in range(4)]
    assert messages == [f"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=loading m.gguf: {n} %" for n in (0, 26, 50, 100)]


def test_slow_start_without_a_manager_starts_no_thread() -> None:
    with Notifier({}).extending("loading"):
        pass


@pytest.mark.parametrize(
    ("flags", "status", "waits"),
    [
        (["--host", "192.0.2.1"], ExitStatus.NETWORK, True),
        (["--state-dir", "/proc/1/x"], ExitStatus.RESOURCES, True),
        (["--model", "/none.gguf"], ExitStatus.MODEL, False),
        (["--host", "0.0.0.0"], ExitStatus.EXPOSED, False),
    ],
)
@pytest.mark.parametrize("managed", [False, True])
def test_service_waits_before_it_ends_by_an_error_that_may_pass(
    managed: bool, flags: list[str], status: int, waits: bool, channel: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setenv("NOTIFY_SOCKET", channel.getsockname() if managed else "")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert main(["serve", "--port", "0", *flags]) == status
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert slept == ([30.0] if waits and managed else [])
    if slept:
        assert channel.recv(400).startswith(b"STATUS=tries again in 30 s: ")


async def received(channel: socket.socket, wanted: str) -> str:
    """Wait for a message that begins with the text, ignoring the others."""
    channel.setblocking(False)
    while True:
        await trio.lowlevel.wait_readable(channel)
        if (message := channel.recv(200).decode()).startswith(wanted):
            return message


@pytest.mark.slow
async def test_watchdog_is_fed_until_a_step_is_stuck(
    channel: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, config = PacedModel(), Config(model=NAME)
    notifier = Notifier(environ(channel, WATCHDOG_USEC="30000"))
    with listening_sockets(["127.0.0.1"], 0, {}) as listening, trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run, config, listening, *wired(model, config), notifier)
            for _ in range(3):
                await received(channel, "WATCHDOG=1")
            monkeypatch.setattr("engine.runtime.engine.Engine.stuck", True)
            await received(channel, "WATCHDOG=trigger")
            with trio.move_on_after(0.1) as quiet:
                await received(channel, "WATCHDOG=1")
            assert quiet.cancelled_caught
            nursery.cancel_scope.cancel()
    assert "the model does not return from a step: the watchdog ends the process" in caplog.messages


class At(Struct, frozen=True):
    port: int


async def test_status_names_running_responses_and_returns_to_the_address(
    channel: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "STATUS_SECONDS", 0.01)
    model, config = PacedModel(), Config(model=NAME)
    with listening_sockets(["127.0.0.1"], 0, {}) as listening, trio.fail_after(PATIENCE):
        port = listening.port
        async with trio.open_nursery() as nursery:
            engine, app = wired(model, config)
            nursery.start_soon(daemon.run, config, listening, engine, app, Notifier(environ(channel)))
            await received(channel, "READY=1")
            model.hold()

            nursery.start_soon(exchange, At(port), "POST", "/v1/responses", encode(input="Hi"))
            assert (await received(channel, "STATUS=0 responses, 1 waiting")).endswith(" 0 tokens/s")
            model.allow(1)
            await received(channel, "STATUS=1 response, 0 waiting")
            model.go()
            await received(channel, f"STATUS=listening on http://127.0.0.1:{port}")
            nursery.cancel_scope.cancel()
