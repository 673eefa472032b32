"""The listener: hypercorn accepts connections and stops; `Connection` serves each of them."""

import logging
import math
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

import hypercorn.trio
import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from server.access import Refusal
from server.http import tls
from server.http.connection import Application, Connection, proxy_log
from server.http.connection_limits import Admission, ConnectionCount, OverloadedApp, Reserve, with_short_wait
from server.http.drain import Drain
from server.http.sockets import peer_of
from server.listening import HTTPOptions

RESERVED_FILES = 64
"""Number of file descriptors reserved for the model, the store, and connections that request `/health`."""
REPEAT_SECONDS = 60.0
"""Seconds between two log lines about connections that cannot be accepted."""
BACKLOG = 1024
"""Connections that the kernel completes before they are accepted. Beyond them, clients repeat SYN after a second."""
CLOSE_SECONDS = 1.0
"""Seconds to send the end of a TLS connection."""


refusals = logging.getLogger("responsed.http.refusals")


def max_connections() -> int:
    """Raise the soft limit of open files to the hard one, and return the number of connections that it allows.

    Beyond that number, new connections close idle ones.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(soft - RESERVED_FILES, soft // 2) if soft > 0 else sys.maxsize


class _OncePerMinute(logging.Filter):
    """Filter that reduces a repeated message to one line a minute, without a traceback.

    trio logs ten tracebacks a second while file descriptors are missing.
    """

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
    sockets: Sequence[socket.socket],
    shutdown_timeout: float,
    stop: Callable[[], Awaitable[None]],
    options: HTTPOptions,
    drain: Drain | None = None,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` returns; then finish the requests in progress, within `shutdown_timeout` seconds.

    Report the addresses as the value of `task_status`. The listener closes when `stop` returns.
    """
    drain = drain or Drain()
    count = ConnectionCount(options, max_connections, drain.close_idle)
    overloaded, reserve = OverloadedApp(app, options.refusals), Reserve(options.refusals)

    async def serve_connection(*arguments: Any) -> None:
        """Serve one connection. hypercorn passes the arguments of its own TCPServer, the stream last."""
        stream: trio.SocketStream = arguments[-1]
        address, _ = peer_of(stream.socket) or ("", 0)
        with count.admit(address) as admission:
            if admission is not Admission.ADMITTED:
                limit = "--max-connections" if admission is Admission.RESERVED else "--max-connections-per-address"
                refusals.warning("a connection from %s is refused: too many are open (%s)", address, limit)
            if admission is Admission.RESERVED:
                with reserve.enter():
                    await _serve_stream(overloaded, stream, drain, with_short_wait(options))
            elif admission is Admission.ADMITTED:
                await _serve_stream(app, stream, drain, options)

    async def drained() -> None:
        await stop()
        drain.close()

    config = Config()
    config.bind = [f"fd://{each.detach()}" for each in sockets]
    config.graceful_timeout = shutdown_timeout
    config.backlog = BACKLOG
    config.errorlog = logging.getLogger("responsed.hypercorn")
    config.errorlog.setLevel(logging.WARNING)  # the daemon logs the addresses itself
    hypercorn.trio.run.TCPServer = serve_connection  # type: ignore[assignment,attr-defined]  # no option replaces it
    with ExitStack() as stack:
        for repeated in (logging.getLogger("trio.serve_listeners"), refusals, proxy_log, tls.log):
            repeated.addFilter(once := _OncePerMinute())
            stack.callback(repeated.removeFilter, once)
        await hypercorn.trio.serve(
            cast("ASGIFramework", app), config, shutdown_trigger=drained, task_status=task_status
        )


async def _serve_stream(app: Application, stream: trio.SocketStream, drain: Drain, options: HTTPOptions) -> None:
    """Serve a connection, encrypted if the options say so."""
    if options.tls is None or stream.socket.family == socket.AF_UNIX:
        await Connection(app, stream, drain, options).run()
        return
    encrypted: trio.SSLStream[trio.SocketStream] | Refusal | None = None
    with drain.wait_for_request(options.limits.idle_seconds, first=True) as waiting:
        encrypted = await tls.handshake(stream, options.tls)
    if drain.timed_out(waiting):
        encrypted = Refusal.HANDSHAKE_TIMEOUT
    if isinstance(encrypted, Refusal):
        options.refusals[encrypted] += 1
    elif encrypted is not None:
        await Connection(app, encrypted, drain, options).run()
        with trio.move_on_after(CLOSE_SECONDS), suppress(trio.BrokenResourceError):
            await encrypted.aclose()  # proves that nothing is missing (RFC 8446, 6.1)
