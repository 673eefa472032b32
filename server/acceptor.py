"""hypercorn, as we run it: it listens, accepts and knows when to stop. What it accepts is talked to in `http`."""

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hypercorn.trio
import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from server.http import Application, Connection, Door


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
    door = Door()

    async def converse(*arguments: Any) -> None:
        """hypercorn brings what its own connections need; the stream is the last of it."""
        await Connection(app, arguments[-1], door).run()

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
