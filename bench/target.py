"""The server under measurement: where it is, what its model is called, what a request to it looks like."""

import http.client
import json
import socket
import subprocess
import time
from typing import Any
from urllib.parse import SplitResult, urlsplit

from client import Client

RESTART_SECONDS = 120.0
"""How long a server may take until it listens again."""


class Target:
    """A Responses server at a URL."""

    def __init__(self, url: str, model: str | None, restart_command: str | None = None) -> None:
        """Raises OSError where nobody listens, ValueError where the URL or the model's name can't be had."""
        self.url = url
        self._restart_command = restart_command
        self._base = base_of(url)
        # Names may stand for several addresses; the one that answers is the one to measure.
        with socket.create_connection((self._base.hostname, self._base.port or 80), timeout=60) as probe:
            self._address, self._family = probe.getpeername(), probe.family
        self.model = model or first_model(self._base)

    def restart(self) -> None:
        """Have the server restarted, and wait until it listens. Raises ValueError, TimeoutError."""
        if self._restart_command is None:
            raise ValueError("this scenario needs --restart COMMAND")
        if status := subprocess.run(self._restart_command, shell=True, stdout=subprocess.DEVNULL).returncode:
            raise ValueError(f"{self._restart_command!r} failed with exit status {status}")
        deadline = time.monotonic() + RESTART_SECONDS
        while time.monotonic() < deadline:
            try:
                return socket.create_connection(self._address[:2], timeout=1).close()
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(f"{self.url} does not listen {RESTART_SECONDS:g} s after its restart")

    def client(self) -> Client:
        return Client(self._address, self._family)

    def request(
        self,
        input_: str | list[dict[str, Any]],
        tokens: int,
        instructions: str | None = None,
        format_: dict[str, Any] | None = None,
    ) -> bytes:
        """One whole request. It asks for the connection to be closed, so that the end of the answer is plain."""
        wish: dict[str, Any] = {"model": self.model, "input": input_, "max_output_tokens": tokens}
        wish |= {"stream": True, "temperature": 0, "store": False}
        if instructions is not None:
            wish["instructions"] = instructions
        if format_ is not None:
            wish["text"] = {"format": format_}
        body = json.dumps(wish).encode()
        head = (
            f"POST {self._base.path}/v1/responses HTTP/1.1\r\nHost: {self._base.netloc}\r\nConnection: close\r\n"
            "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def base_of(url: str) -> SplitResult:
    """The server's address, whether or not the URL says /v1. Raises ValueError on anything but plain HTTP."""
    parts = urlsplit(url.rstrip("/").removesuffix("/v1"))
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"want http://HOST:PORT, not {url!r}")
    return parts


def first_model(base: SplitResult) -> str:
    """The first name of /v1/models. Raises ValueError where there is none."""
    connection = http.client.HTTPConnection(base.hostname or "", base.port or 80, timeout=60)
    try:
        connection.request("GET", f"{base.path}/v1/models")
        response = connection.getresponse()
        return str(json.loads(response.read())["data"][0]["id"])
    except (http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"no model name at /v1/models; give --model ({error!r})") from error
    finally:
        connection.close()
