"""The server under measurement: its address, its model's name and its requests."""

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apis import APIS, Question
from client import STALL_SECONDS, StreamClient, WireRequest
from transport import Endpoint, Tls, authorization, wait_ready


@dataclass(slots=True, frozen=True)
class ClientOptions:
    """Properties of requests and connections, the same for all servers."""

    api: str = "responses"
    model: str | None = None
    key: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of every request that clients do not send by default."""
    keep_alive: bool = True
    stall: float = STALL_SECONDS
    tls: Tls = field(default_factory=Tls)


class Target:
    """A server at a URL. `restart` starts it anew and returns the time of that; None if the bench cannot."""

    def __init__(
        self, url: str, options: ClientOptions | None = None, restart: Callable[[], float] | None = None
    ) -> None:
        """Raises OSError if no server listens, ValueError if the URL is wrong or the model has no name."""
        self._options = options or ClientOptions()
        self._restart = restart
        self._api = APIS[self._options.api]
        self.endpoint = Endpoint(url, self._options.tls)
        self.url = self.endpoint.url
        self.endpoint.resolve()
        self.model = self._options.model or self._first_model()
        self._client: StreamClient | None = None

    @property
    def restarts(self) -> bool:
        """True if the bench can restart the server."""
        return self._restart is not None

    def restart(self) -> float:
        """Restart the server, wait until it is ready, and return the clock's time of its start.

        Raises ValueError, TimeoutError.
        """
        self.client().close()
        return self.restart_server()

    def restart_server(self) -> float:
        """Restart the server without touching the client, as in another thread. Raises ValueError, TimeoutError."""
        if self._restart is None:
            raise ValueError("this scenario needs --restart COMMAND, or --serve COMMAND")
        begin = self._restart()
        wait_ready(self.endpoint, authorization(self._options.key))
        return begin

    def client(self) -> StreamClient:
        """Return the client, which all scenarios share, as the connections of a program are shared."""
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self) -> StreamClient:
        """Return a client with connections of its own."""
        return StreamClient(self.endpoint, self._options.keep_alive, self._options.stall)

    def request(
        self,
        input_: str | list[dict[str, Any]],
        tokens: int | None,
        instructions: str | None = None,
        format_: dict[str, Any] | None = None,
    ) -> WireRequest:
        """Return one request, with at most `tokens` of output, with the fields that clients send."""
        return self.body_request(self._api.body(Question(input_, tokens, instructions, format_)), tokens)

    def body_request(self, fields: dict[str, Any], tokens: int | None = None) -> WireRequest:
        """Return the request with that body; the model and the fields of the options are added."""
        body = json.dumps({"model": self.model} | fields | dict(self._options.fields)).encode()
        return WireRequest(self._head("POST", self._api.path, len(body)) + body, tokens)

    def models_request(self) -> WireRequest:
        """Return a request for the models: the smallest that each server has."""
        return WireRequest(self._head("GET", "/v1/models"))

    def _head(self, method: str, path: str, length: int | None = None) -> bytes:
        lines = [f"{method} {self.endpoint.prefix}{path} HTTP/1.1", f"Host: {self.endpoint.netloc}"]
        if not self._options.keep_alive:
            lines.append("Connection: close")
        if length is not None:
            lines += ["Accept: text/event-stream", "Content-Type: application/json", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in authorization(self._options.key).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _first_model(self) -> str:
        """Return the first name of /v1/models. Raises ValueError if there is none."""
        try:
            status, body = self.endpoint.get("/v1/models", authorization(self._options.key))
            if status in (401, 403):
                remedy = "give its key with --api-key" if self._options.key is None else "--api-key is not its key"
                raise ValueError(f"the server refuses /v1/models with {status}; {remedy}")
            if status != 200:
                words = body.decode(errors="replace")[:200]
                raise ValueError(f"/v1/models has status {status}; is it the right URL? It answers: {words}")
            return str(json.loads(body)["data"][0]["id"])
        except (http.client.HTTPException, json.JSONDecodeError, LookupError, TypeError) as error:
            raise ValueError(f"/v1/models lists no model; name one with --model ({error!r})") from error


def restart_command(command: str) -> Callable[[], float]:
    """Return a function that runs the command and returns the time of its start. It raises ValueError on a failure."""

    def run() -> float:
        begin = time.perf_counter()
        if status := subprocess.run(command, shell=True, stdout=subprocess.DEVNULL).returncode:
            raise ValueError(f"{command!r} failed with exit status {status}")
        return begin

    return run
