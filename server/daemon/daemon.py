"""Life of the server process: start the engine, listen, report readiness; on a signal end the streams and stop."""

import logging
import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import trio

from engine.wording import counted
from server.api import App
from server.config import Config, read_prewarm_files
from server.daemon.prewarm import prewarm
from server.generation import Generator
from server.http import Drain
from server.http import listener as http_listener
from server.listening import HTTPOptions, ListeningSockets, http_options
from server.systemd import Notifier

CLOSING_SECONDS = 2.0
"""Seconds to send the last frames, after the shutdown timeout."""

STATUS_SECONDS = 5.0
"""Seconds between two updates of the status for systemd."""

log = logging.getLogger("responsed")


async def run(
    config: Config,
    listening: ListeningSockets,
    engine: Generator,
    app: App,
    notifier: Notifier,
    reload: Callable[[], None] | None = None,
    options: HTTPOptions | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. A second signal, or one during the warm-up, ends the process at once.

    `reload` reads the settings again, at each SIGHUP; it raises no exception.

    Raises ModelError, in a group, if the model generates no token.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(app.host)
        engine_scope: trio.CancelScope = await nursery.start(_run_engine, engine, app)
        files = read_prewarm_files(config.prewarm)
        if not files:
            nursery.start_soon(engine.restore)  # beside the warm-up, so that the first request finds more
        with notifier.extending("evaluating the first prompts"):
            await engine.warm_up()
            if files:
                await engine.restore()  # the last run's cache may have these prompts
                await prewarm(engine, app, files)
        stop, drain = trio.Event(), Drain()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            options = options or http_options(config)
            # hypercorn has no timeout: a stream that it cuts gets no terminal event.
            serve = partial(http_listener.serve, app, listening.sockets, math.inf, stop.wait, options, drain)
            addresses: list[str] = await nursery.start(serve)
            status = f"listening on {', '.join(_urls(addresses, options))}"
            log.info(status)
            notifier.notify("READY=1", f"STATUS={status}")
            nursery.start_soon(_report_status, app, notifier, status)
            if notifier.watchdog_seconds:
                nursery.start_soon(_feed_watchdog, engine, notifier)
            name = await _end_signal(signals, notifier, reload)
        # Closing the receiver restores the previous handler for the next signal.
        notifier.notify("STOPPING=1", "STATUS=waiting for streams to end")
        grace = app.config.shutdown_timeout_seconds
        log.info("%s: streams in progress have %g s to end", name, grace)
        stop.set()
        app.stop_admitting()
        with trio.move_on_after(grace):
            await drain.wait_first_requests()
            await app.wait_idle()
        drain.widen()
        app.stop()  # sends and stores the terminal event of every running response, even if the thread is stuck
        engine_scope.cancel()
        with trio.move_on_after(CLOSING_SECONDS):
            await app.wait_idle()
        nursery.cancel_scope.cancel()
    log.info("stopped")


def _urls(addresses: Sequence[str], options: HTTPOptions) -> list[str]:
    """Return hypercorn's URLs with our scheme: hypercorn does not know of the encryption."""
    if options.tls is None:
        return list(addresses)
    return [each if "//unix:" in each else each.replace("http:", "https:", 1) for each in addresses]


async def _end_signal(signals: AsyncIterator[int], notifier: Notifier, reload: Callable[[], None] | None) -> str:
    """Wait for SIGTERM or SIGINT and return its name; reload the settings at each SIGHUP."""
    while (number := await anext(signals)) == signal.SIGHUP:
        if reload is not None:
            # systemd waits for READY=1 after RELOADING=1 (sd_notify(3)).
            notifier.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            reload()
            notifier.notify("READY=1")
    return signal.Signals(number).name


async def _report_status(app: App, notifier: Notifier, idle: str) -> None:
    """Tell systemd every few seconds what the server does."""
    began, tokens = trio.current_time(), app.generated_tokens
    while True:
        await trio.sleep(STATUS_SECONDS)
        before, began = began, trio.current_time()
        rate, tokens = (app.generated_tokens - tokens) / (began - before), app.generated_tokens
        busy = f"{counted(app.running, 'response')}, {app.waiting} waiting, {rate:.0f} tokens/s"
        notifier.status(busy if app.running or app.waiting else idle)


async def _feed_watchdog(engine: Generator, notifier: Notifier) -> None:
    """Send signs of life while the event loop turns and the model makes progress or idles."""
    while not engine.stuck:
        notifier.alive()
        await trio.sleep(notifier.watchdog_seconds / 3)
    # systemd sends SIGABRT at once, which writes the stacks of all threads, and starts the service again.
    log.critical("the model does not return from a step: the watchdog ends the process")
    notifier.notify("WATCHDOG=trigger")


async def _run_engine(engine: Generator, app: App, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """Run the engine. An exception of its thread ends the server once all responses have their terminal event."""
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            task_status.started(nursery.cancel_scope)
    finally:
        with trio.move_on_after(CLOSING_SECONDS, shield=True):  # a Cancelled here would hide the exception
            await app.wait_idle()
