"""Life of the server process: start the engine, listen, report readiness; on a signal end the streams and stop."""

import ipaddress
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping

import trio

from engine.job import Finished, FinishReason, Job, SamplingParams
from engine.model import ModelError
from engine.runtime import Engine
from server.api import App
from server.config import Config
from server.http import listener as http_listener

CLOSING_SECONDS = 2.0
"""Seconds to send the last frames, after the shutdown timeout."""

WARM_UP_TOKENS = 32
"""Prompt tokens of the warm-up job."""

UNACKNOWLEDGED_MILLISECONDS = 30_000
"""Milliseconds until a client that acknowledges no byte counts as disconnected (TCP_USER_TIMEOUT, tcp(7))."""

INHERITED_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),  # probes a silent client, which waits for an answer in one piece
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
)
"""Options that connections inherit from their listener (Linux), so that a client without power or network is noticed
too."""

log = logging.getLogger("responsed")


class BindError(OSError):
    """The address cannot be bound."""


class ExposedAddress(Exception):
    """Other machines could call the server without a key."""


class Notifier:
    """Sends state lines to systemd, at $NOTIFY_SOCKET (sd_notify(3)). Without that variable it does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL that begins an address in the abstract namespace (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def notify(self, *lines: str) -> None:
        """Send lines, for example `notify("READY=1", "STATUS=...")`. Ignore a manager that cannot be reached."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address; hypercorn listens on it once the engine is ready.

    Raises BindError, whose message has the address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for level, option, value in INHERITED_OPTIONS:
                listener.setsockopt(level, option, value)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise BindError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    except UnicodeError as error:  # the name breaks DNS's rules: labels of 1 to 63 bytes
        raise BindError(f"cannot listen on {host} port {port}: this is not a host name") from error
    return listener


def check_exposure(listener: socket.socket) -> None:
    """Raise ExposedAddress if other machines can reach the socket."""
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        host = listener.getsockname()[0]
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            raise ExposedAddress(
                f"{host} is reachable from other machines, and there are no API keys: set --api-key-file, or accept "
                "any caller by --insecure true"
            )


async def run(
    config: Config,
    listener: socket.socket,
    engine: Engine,
    app: App,
    notifier: Notifier,
    reload: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. A second signal, or one during the warm-up, ends the process at once.

    `reload` reads the settings again, at each SIGHUP; it raises no exception.

    Raises ModelError, in a group, if the model generates no token.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(app.host)
        engine_scope: trio.CancelScope = await nursery.start(_run_engine, engine, app)
        await _warm_up(engine)
        engine.restore()
        stop = trio.Event()
        # hypercorn's timeout is longer than ours: a stream that hypercorn cuts gets no terminal event.
        timeout = config.shutdown_timeout_seconds + 2 * CLOSING_SECONDS
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            addresses: list[str] = await nursery.start(http_listener.serve, app, listener, timeout, stop.wait)
            listening = f"listening on {', '.join(addresses)}"
            log.info(listening)
            notifier.notify("READY=1", f"STATUS={listening}")
            name = await _end_signal(signals, notifier, reload)
        # Closing the receiver restores the previous handler for the next signal.
        notifier.notify("STOPPING=1", "STATUS=waiting for streams to end")
        log.info("%s: streams in progress have %g s to end", name, config.shutdown_timeout_seconds)
        stop.set()
        app.stop_admitting()
        with trio.move_on_after(config.shutdown_timeout_seconds):
            await app.wait_idle()
        app.stop()  # sends and stores the terminal event of every running response, even if the thread is stuck
        engine_scope.cancel()
        with trio.move_on_after(CLOSING_SECONDS):
            await app.wait_idle()
        nursery.cancel_scope.cancel()
    log.info("stopped")


async def _end_signal(signals: AsyncIterator[int], notifier: Notifier, reload: Callable[[], None] | None) -> str:
    """Wait for SIGTERM or SIGINT and return its name; reload the settings at each SIGHUP."""
    while (number := await anext(signals)) == signal.SIGHUP:
        if reload is not None:
            # systemd waits for READY=1 after RELOADING=1 (sd_notify(3)).
            notifier.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            reload()
            notifier.notify("READY=1")
    return signal.Signals(number).name


async def _run_engine(engine: Engine, app: App, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """Run the engine. An exception of its thread ends the server once all responses have their terminal event."""
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            task_status.started(nursery.cancel_scope)
    finally:
        with trio.move_on_after(CLOSING_SECONDS, shield=True):  # a Cancelled here would hide the exception
            await app.wait_idle()


async def _warm_up(engine: Engine) -> None:
    """Generate a few tokens: readiness means that the model works, and step times are known to the first client."""
    greedy = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
    with engine.generate(Job((0,) * WARM_UP_TOKENS, 4, greedy)) as outputs:
        async for output in outputs:
            if isinstance(output, Finished) and output.reason is FinishReason.FAILED:
                raise ModelError(output.message)
