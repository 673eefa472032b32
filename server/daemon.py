"""The daemon's life: engine up, sockets open, ready; then, on a signal, streams end and everything closes."""

import logging
import signal
import socket

import trio

from engine.job import Finished, FinishReason, Job, SamplingParams
from engine.model import ModelError
from engine.runtime import Engine
from server.api import App
from server.config import Config
from server.http import listener as acceptor
from server.service import Notifier

CLOSING_SECONDS = 2.0
"""What last frames get to leave in, once the grace is over."""

WARM_UP_TOKENS = 32

STUCK_MILLISECONDS = 30_000
"""A client that takes no byte for so long is cut off (TCP_USER_TIMEOUT), which is then heard as a hang-up."""

log = logging.getLogger("responsed")


def bind(host: str, port: int) -> socket.socket:
    """Raises OSError, with the address in its message. hypercorn listens on it, when there is somebody to answer."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_MILLISECONDS)
        listener.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    except UnicodeError as error:  # the name breaks DNS's rules: labels of 1 to 63 bytes
        raise OSError(f"cannot listen on {host} port {port}: this is not the name of a host") from error
    return listener


async def run(config: Config, listener: socket.socket, engine: Engine, app: App, notifier: Notifier) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once, as one during the warm-up does.

    Raises ModelError, in a group, where the model gives no token.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(app.host)
        engine_scope: trio.CancelScope = await nursery.start(_host, engine, app)
        await _warm_up(engine)
        engine.restore()
        stop = trio.Event()
        # Ours is over before: a stream that hypercorn cuts has no terminal event.
        grace = config.shutdown_timeout_seconds + 2 * CLOSING_SECONDS
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            listening: list[str] = await nursery.start(acceptor.serve, app, listener, grace, stop.wait)
            addresses = ", ".join(listening)
            log.info("listening on %s", addresses)
            notifier.notify("READY=1", f"STATUS=listening on {addresses}")
            name = signal.Signals(await anext(signals)).name
        # The receiver is closed: the next signal meets the handler that was there before.
        notifier.notify("STOPPING=1", "STATUS=waiting for streams to end")
        log.info("%s: streams in progress have %g s to end", name, config.shutdown_timeout_seconds)
        stop.set()
        app.stop_admitting()
        with trio.move_on_after(config.shutdown_timeout_seconds):
            await app.wait_idle()
        app.stop()  # what still runs gets its terminal event, and is stored so, even if the thread is stuck
        engine_scope.cancel()
        with trio.move_on_after(CLOSING_SECONDS):
            await app.wait_idle()
        nursery.cancel_scope.cancel()
    log.info("stopped")


async def _host(engine: Engine, app: App, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """Should the thread die, its exception ends the server; but first, all answers get their end."""
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            task_status.started(nursery.cancel_scope)
    finally:
        with trio.move_on_after(CLOSING_SECONDS, shield=True):  # a Cancelled here would hide the exception
            await app.wait_idle()


async def _warm_up(engine: Engine) -> None:
    """Ready means that the model has answered."""
    greedy = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
    # A few tokens more than one: the first client finds a pace that is measured.
    with engine.generate(Job((0,) * WARM_UP_TOKENS, 4, greedy)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finished) and piece.reason is FinishReason.FAILED:
                raise ModelError(piece.message)
