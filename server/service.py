"""systemd: what the service manager is told (sd_notify(3))."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends state lines to $NOTIFY_SOCKET; without one, does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL that begins an address in the abstract namespace (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def notify(self, *lines: str) -> None:
        """For example `tell("READY=1", "STATUS=...")`. A manager that is gone is no reason to stop."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return
