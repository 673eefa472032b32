"""hypercorn, as we run it: with connections that write at once what the kernel takes at once.

hypercorn 0.18 takes a lock, opens a shielded scope and awaits trio's `send_all` for each write: two turns of the event
loop and 100 us more for every token.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

import hypercorn.trio
import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ASGIFramework

from server.exchange import Receive, Scope, Send

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

KEEP_ALIVE_SECONDS = 20.0
"""Longer than the clients' own (httpx 5 s, node 4 s): a server that closes first loses requests."""


class Connection(TCPServer):
    async def protocol_send(self, event: Event) -> None:
        """Without a checkpoint where the kernel has room. Else, and where the client is gone, hypercorn's own way."""
        if isinstance(event, RawData) and not self.send_lock.locked():
            try:
                sent = os.write(self.stream.socket.fileno(), event.data)
            except OSError:
                sent = 0
            if sent == len(event.data):
                return
            event = RawData(event.data[sent:])
        await super().protocol_send(event)


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
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.graceful_timeout = grace_seconds
    config.include_server_header = False
    config.errorlog = logging.getLogger("responsed.hypercorn")
    config.errorlog.setLevel(logging.WARNING)  # its "Running on ..." stands in our own line
    hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined]  # it can't be told in another way
    await hypercorn.trio.serve(cast("ASGIFramework", app), config, shutdown_trigger=stop, task_status=task_status)
