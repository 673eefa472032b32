"""The other end of a connection."""

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
