"""The command as a process of its own: `responsed serve`, ready, and killed at the end."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.helpers import PATIENCE

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "server"]
ONE_THREAD = ("--threads", "1", "--threads-batch", "1")
"""Flags of a model: the threads of several daemons would share the cores, and spin while they wait for one another."""

START_SECONDS = 120.0
"""A first start rewrites the model and tries it out; on a busy machine that takes a while."""
POLL_SECONDS = 1.0
"""Time between two looks at a process that sends no message."""


class Daemon:
    """A running `responsed serve`, and the socket it reports to."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, log: Path) -> None:
        self.process = process
        self.log = log
        self._channel = channel
        channel.settimeout(POLL_SECONDS)
        self.starting: list[str] = []
        """Messages before `READY=1`."""
        while (message := self.message()).startswith("EXTEND_TIMEOUT_USEC="):
            self.starting.append(message)
        self.ready = message
        self.port = int(self.ready.rpartition(":")[2])

    def message(self) -> str:
        """Return the next message. An error has the log of the process: pytest may delete the file."""
        end = time.monotonic() + START_SECONDS
        ended = False
        while time.monotonic() < end and not ended:
            ended = self.process.poll() is not None  # its last message may still be there
            with suppress(TimeoutError):
                return self._channel.recv(4096).decode()
        raise AssertionError(f"no message; status {self.process.poll()}; log: {self.log.read_text()}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@contextmanager
def serving(folder: Path, *flags: str, address: str | None = None) -> Iterator[Daemon]:
    address = address or str(folder / "notify")
    log = folder / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, log.open("wb") as stderr:
        channel.bind("\0" + address[1:] if address.startswith("@") else address)
        threads = () if "--upstream" in flags else ONE_THREAD
        command = [*COMMAND, "serve", "--port", "0", "--state-dir", str(folder / "state"), *threads, *flags]
        with subprocess.Popen(command, cwd=ROOT, stderr=stderr, env=os.environ | {"NOTIFY_SOCKET": address}) as process:
            try:
                yield Daemon(process, channel, log)
            finally:
                process.kill()
