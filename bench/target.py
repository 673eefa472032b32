"""The server under measurement: its address, its model's name and its requests."""

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from client import StreamClient

RESTART_SECONDS = 120.0
"""Maximum seconds until a restarted server listens again."""


class Target:
    """A Responses server at a URL."""

    def __init__(
        self,
        url: str,
        model: str | None,
        restart_command: str | None = None,
        fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """`fields`: fields of every request that clients do not send by default.

        Raises OSError if no server listens, ValueError if the URL is wrong or the model has no name.
        """
        self.url = url
        self._fields = dict(fields)
        self._restart_command = restart_command
        self._base = base_of(url)
        # A name may have several addresses: measure the one that accepts the connection.
        with socket.create_connection((self._base.hostname, self._base.port or 80), timeout=60) as probe:
            self._address, self._family = probe.getpeername(), probe.family
        self.model = model or first_model(self._base)

    def restart(self) -> None:
        """Restart the server, and wait until it listens. Raises ValueError, TimeoutError."""
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

    def client(self) -> StreamClient:
        """Return a new client."""
        return StreamClient(self._address, self._family)

    def request(
        self,
        input_: str | list[dict[str, Any]],
        tokens: int | None,
        instructions: str | None = None,
        format_: dict[str, Any] | None = None,
    ) -> bytes:
        """Return the bytes of one request, with at most `tokens` of output, with the fields that clients send.

        It asks the server to close the connection, which marks the end of the response.
        """
        body_fields: dict[str, Any] = {"model": self.model, "input": input_, "stream": True} | self._fields
        if tokens is not None:
            body_fields["max_output_tokens"] = tokens
        if instructions is not None:
            body_fields["instructions"] = instructions
        if format_ is not None:
            body_fields["text"] = {"format": format_}
        body = json.dumps(body_fields).encode()
        head = (
            f"POST {self._base.path}/v1/responses HTTP/1.1\r\nHost: {self._base.netloc}\r\nConnection: close\r\n"
            "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def base_of(url: str) -> SplitResult:
    """Return the server's address, with or without /v1 in the URL. Raises ValueError unless it is plain HTTP."""
    parts = urlsplit(url.rstrip("/").removesuffix("/v1"))
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"the URL must be http://HOST:PORT, not {url!r}")
    return parts


def first_model(base: SplitResult) -> str:
    """Return the first name of /v1/models. Raises ValueError if there is none."""
    connection = http.client.HTTPConnection(base.hostname or "", base.port or 80, timeout=60)
    try:
        connection.request("GET", f"{base.path}/v1/models")
        response = connection.getresponse()
        return str(json.loads(response.read())["data"][0]["id"])
    except (http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"/v1/models lists no model; name one by --model ({error!r})") from error
    finally:
        connection.close()
