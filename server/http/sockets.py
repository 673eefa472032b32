"""Functions over connected sockets."""

import os

import trio

from server.access import UNIX


def peer_of(connected: trio.socket.SocketType) -> tuple[str, int] | None:
    """Return the client's address and port; `unix` for a unix socket; None if it has disconnected."""
    try:
        peer = connected.getpeername()
    except OSError:
        return None
    if isinstance(peer, str | bytes):
        return UNIX, 0
    return peer[0].removeprefix("::ffff:"), peer[1]  # an IPv4 client of `::` (RFC 4291, 2.5.5.2)


async def read_some(connected: trio.socket.SocketType, max_bytes: int) -> bytes:
    """Wait for bytes and return them; none at the end of the input. Raises OSError, trio.ClosedResourceError.

    Trio's `recv` tries to read before it waits, which costs a failed system call and two scopes for most reads.
    """
    while True:
        if connected.fileno() < 0:  # trio would wait for a descriptor that does not exist
            raise trio.ClosedResourceError("this socket was already closed")
        await trio.lowlevel.wait_readable(connected)
        try:
            return os.read(connected.fileno(), max_bytes)
        except BlockingIOError:
            pass  # the kernel may call a socket readable that is not (select(2), "BUGS")


def write_available(connected: trio.socket.SocketType, data: bytes) -> int:
    """Send what the socket's buffer takes, without a turn of the event loop; return its bytes. Raises OSError."""
    try:
        return os.write(connected.fileno(), data)
    except BlockingIOError:
        return 0
