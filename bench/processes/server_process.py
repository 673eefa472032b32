"""A server that the bench starts and stops: `--serve COMMAND`, `--vs COMMAND`."""

import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time

from target import ClientOptions
from transport import Endpoint, authorization, wait_ready

STOP_SECONDS = 30.0
"""Seconds from SIGTERM to SIGKILL."""
_PORT = re.compile(r"--port[= ]+(\d+)")


def is_command(text: str) -> bool:
    """True if a value of `--vs` is a command: a URL has no blank."""
    return bool(re.search(r"\s", text.strip()))


class ServerProcess:
    """A server's process. `{port}` in its command is a free port."""

    def __init__(self, command: str, url: str | None = None, options: ClientOptions | None = None) -> None:
        """Raises ValueError if the URL cannot be known."""
        self.command = [part.replace("{port}", str(_free_port())) for part in shlex.split(command)]
        found = _PORT.search(" ".join(self.command))
        if url is None and found is None:
            raise ValueError(f"{command!r} has no --port {{port}}, and there is no --url: where does it listen?")
        self.url = url or f"http://127.0.0.1:{found[1] if found else 0}"
        self._options = options or ClientOptions()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id. The server runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start the server, wait until it is ready, and return the clock's time of its start.

        Raises ValueError with its last words if it cannot be started, or ends.
        """
        begin = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
            )
            wait_ready(Endpoint(self.url, self._options.tls), authorization(self._options.key), lambda: self._running)
        except (OSError, TimeoutError) as error:
            raise ValueError(f"{shlex.join(self.command)}: {error}{self._last_words()}") from error
        return begin

    def stop(self) -> None:
        """End the server by SIGTERM, or by SIGKILL if it does not end."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(STOP_SECONDS)
            except ProcessLookupError:
                self._process.wait()
            except subprocess.TimeoutExpired:
                continue
            break
        self._process = None

    def restart(self) -> float:
        """Stop the server, start it, and return the clock's time of the start."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop the server and forget its output."""
        self.stop()
        self._log.close()

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        return "".join(f"\n  {line}" for line in lines[-6:] if line)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
