"""Notifications to systemd: readiness, status, watchdog, and more time for a slow start (sd_notify(3))."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

EXTENSION_SECONDS = 60
"""Seconds that each message of a slow start asks for."""
SHARE_SECONDS = 1.0
"""Seconds between two looks at the share of a slow start that is done."""
MAX_START_SECONDS = 3600
"""Seconds after which a start asks for no more time: it is stuck."""
SEND_SECONDS = 1.0
"""Seconds to wait for a manager that has not read the earlier messages (its queue has places for 10 to 512 of them)."""


class Notifier:
    """Sends state lines to systemd, at $NOTIFY_SOCKET. Without that variable it does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL that begins an address in the abstract namespace (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self.watchdog_seconds = _watchdog_seconds(environ)
        """Longest time between two signs of life; 0 if systemd expects none."""

    def notify(self, *lines: str, seconds: float = SEND_SECONDS) -> None:
        """Send lines, for example `notify("READY=1", "STATUS=...")`. Ignore a manager that cannot be reached, or that
        reads nothing for `seconds`."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(seconds)
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return

    def status(self, text: str) -> None:
        """Send the status if it has changed. The event loop does not wait for the manager."""
        if text != self._status:
            self._status = text
            self.notify(f"STATUS={text}", seconds=0)

    def alive(self) -> None:
        """Send a sign of life for the watchdog. The event loop does not wait for the manager."""
        self.notify("WATCHDOG=1", seconds=0)

    def wait(self, reason: str, seconds: float) -> None:
        """Sleep with a status; without systemd return at once."""
        if self._address:
            self.notify(f"STATUS=tries again in {seconds:g} s: {reason}", f"EXTEND_TIMEOUT_USEC={seconds * 2e6:.0f}")
            time.sleep(seconds)

    @contextmanager
    def extending(self, text: str, share: Callable[[], float] | None = None) -> Iterator[None]:
        """Ask for more time while the block runs, from a thread: native code may block this one.

        The status is `text`, with the percentage of `share` if there is one, from 0 to 1.
        """
        if not self._address:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._extend, args=(text, share, ended), name="extend-start", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _extend(self, text: str, share: Callable[[], float] | None, ended: threading.Event) -> None:
        last = ""
        for second in range(int(MAX_START_SECONDS / SHARE_SECONDS)):
            status = text if share is None else f"{text}: {100 * min(share(), 1):.0f} %"
            if status != last or second % (EXTENSION_SECONDS // 3) == 0:
                self.notify(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}", f"STATUS={status}")
            last = status
            if ended.wait(SHARE_SECONDS):
                return


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Return the value of WatchdogSec= (sd_watchdog_enabled(3)); 0 if it is for another process or missing."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() else 0.0
