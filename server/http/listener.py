"""hypercorn, as we run it: it listens, accepts and knows when to stop. What it accepts is talked to in `http`."""

import logging
import math
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import hypercorn.trio
import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from server.http.connection import Application, Connection, Drain

RESERVED_FILES = 64
"""File descriptors that connections leave to the model, the store, and to connections that ask for `/health`."""
REPEAT_SECONDS = 60.0
"""Time between two lines of the log about connections that cannot be accepted."""


def most_connections() -> int:
    """Connections beyond which idle ones are closed for new ones. Raises the soft limit of files to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(soft - RESERVED_FILES, RESERVED_FILES) if soft > 0 else sys.maxsize


class _AcceptErrors(logging.Filter):
    """Trio logs a traceback ten times a second while file descriptors are missing; one line a minute says the same."""

    def __init__(self) -> None:
        super().__init__()
        self._next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        due = time.monotonic() >= self._next
        if due:
            self._next = time.monotonic() + REPEAT_SECONDS
        return due


async def serve(
    app: Application,
    listener: socket.socket,
    grace_seconds: float,
    stop: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until `stop` comes back, and then for as long as connections have work, `grace_seconds` at most.

    Started, it tells its addresses. The listener is closed at the stop.
    """
    door = Drain()
    connections = 0

    async def converse(*arguments: Any) -> None:
        """hypercorn brings what its own connections need; the stream is the last of it."""
        nonlocal connections
        connections += 1
        try:
            if connections > most_connections():
                door.close_oldest()
            await Connection(app, arguments[-1], door).run()
        finally:
            connections -= 1

    logging.getLogger("trio.serve_listeners").addFilter(_AcceptErrors())

    async def stopped() -> None:
        await stop()
        door.close()

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = grace_seconds
    config.errorlog = logging.getLogger("responsed.hypercorn")
    config.errorlog.setLevel(logging.WARNING)  # its "Running on ..." stands in our own line
    hypercorn.trio.run.TCPServer = converse  # type: ignore[assignment,attr-defined]  # it can't be told in another way
    await hypercorn.trio.serve(cast("ASGIFramework", app), config, shutdown_trigger=stopped, task_status=task_status)
