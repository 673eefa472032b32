"""A daemon inside the test, on a real socket, and a client that sees every byte."""

import contextlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
import openai
import trio
from msgspec import Struct

from engine.backends import scripted
from engine.backends.scripted import Reply, ScriptedModel
from engine.chat_template.template import ChatTemplate
from engine.model import BatchEntry
from engine.runtime.engine import DEFAULT_CACHE_BYTES, Engine
from engine.runtime.kv_snapshots import Snapshots
from engine.tokenizer import Vocabulary
from server import daemon
from server.access.api_keys import ApiKey, ApiKeys
from server.api.app import App
from server.config.config import Config
from server.listening.options import http_options
from server.listening.sockets import listening_sockets
from server.monitoring.metrics import PrometheusMetrics
from server.served_model.embedded import ModelDetails
from server.store.async_store import AsyncStore
from server.store.locations import Place, PostgresURL, open_database
from server.store.responses import Store
from server.stream import replay
from server.systemd import Notifier
from tests.server.store.entries import AMPLE
from tests.support import wire

CREATED = 1_700_000_000
PATIENCE = 30.0
"""Seconds after which a test that waits has failed; nothing takes so long on its own."""

NAME = "scripted"


class Running(Struct, frozen=True):
    """A running daemon, as `served` yields it."""

    port: int
    engine: Engine
    app: App
    model: ScriptedModel
    config: Config

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def sends_chat(self) -> bool:
        """True if upstreams answer by chat completions, which lack some features."""
        return bool(self.config.upstreams) and self.config.upstream_api == "chat"


class Server(Protocol):
    """Whatever listens: Running, or a process of its own."""

    @property
    def port(self) -> int: ...


class PacedModel(ScriptedModel):
    """A ScriptedModel whose decodes wait, once `hold` was called, until `allow` lets some or `go` lets all through."""

    def __init__(
        self,
        reply: Reply = scripted.echo,
        *,
        n_ctx: int = 4096,
        n_slots: int = 2,
        batched: bool = False,
        seconds_per_token: float = 0.0,
    ) -> None:
        super().__init__(reply, n_ctx=n_ctx, n_slots=n_slots, batched=batched, seconds_per_token=seconds_per_token)
        self._changed = threading.Condition()
        self._allowed: int | None = None
        self._begun = 0

    def hold(self) -> None:
        with self._changed:
            self._allowed = self._begun = 0

    def allow(self, decodes: int) -> None:
        with self._changed:
            assert self._allowed is not None, "hold() comes first"
            self._allowed += decodes
            self._changed.notify_all()

    def go(self) -> None:
        with self._changed:
            self._allowed = None
            self._changed.notify_all()

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        with self._changed:
            self._begun += 1
            mine = self._begun
            self._changed.notify_all()
            came = self._changed.wait_for(lambda: self._allowed is None or mine <= self._allowed, PATIENCE)
            assert came, "a test left the model waiting"
        super().decode(batch)

    async def wait_begun(self, decodes: int) -> None:
        """Until that many decodes have begun since `hold`; the last of them may be waiting."""
        await trio.to_thread.run_sync(self._wait_begun, decodes)

    def _wait_begun(self, decodes: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._begun >= decodes, PATIENCE), f"only {self._begun} decodes"


class Ready(Notifier):
    """A Notifier that tells the test too."""

    def __init__(self) -> None:
        super().__init__({})
        self.event = trio.Event()

    def notify(self, *lines: str, seconds: float = 0) -> None:
        self.event.set()


@cache
def scripted_vocabulary() -> Vocabulary:
    return scripted.vocabulary()


@cache
def compiled_template(source: str) -> ChatTemplate:
    """Return a template with the scripted vocabulary; both are read-only, so daemons share them."""
    return ChatTemplate(source, scripted_vocabulary())


def wired(
    model: ScriptedModel,
    config: Config,
    store: AsyncStore | None = None,
    template: str = scripted.TEMPLATE,
    snapshots: Snapshots | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    keys: Mapping[str, str | ApiKey] | None = None,
    metrics: PrometheusMetrics | None = None,
    state: Path | None = None,
) -> tuple[Engine, App]:
    """The parts of a daemon around a scripted model, as the command wires them."""
    vocabulary, compiled = scripted_vocabulary(), compiled_template(template)
    engine = Engine(model, vocabulary.end_tokens, snapshots=snapshots, cache_bytes=cache_bytes)
    details = ModelDetails(NAME, CREATED, model.info, vocabulary, compiled)
    return engine, App(config, engine, details, store, None if keys is None else api_keys(keys), metrics, state)


def api_keys(keys: Mapping[str, str | ApiKey]) -> ApiKeys:
    """Return API keys; a text is a key without options."""
    return ApiKeys({name: key if isinstance(key, ApiKey) else ApiKey(key) for name, key in keys.items()})


def open_store(place: Place, kind: type[Store] = Store, address: str = "") -> Store:
    return kind(open_database(place, address), AMPLE, replay.interrupted_response, time.monotonic())


def store_place(config: Config) -> Place | None:
    if config.store is not None and config.store.startswith("postgresql:"):
        return PostgresURL(config.store)
    return None if config.store == "off" or config.state_dir is None else config.state_dir / "responses.db"


@asynccontextmanager
async def served(
    model: ScriptedModel | None = None,
    *,
    kind: type[Store] = Store,
    template: str = scripted.TEMPLATE,
    snapshots: bool = False,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    state: Path | None = None,
    keys: Mapping[str, str | ApiKey] | None = None,
    patience: float = PATIENCE,
    **settings: Any,
) -> AsyncIterator[Running]:
    """The daemon, from its sockets to its thread, with a scripted model; `settings` are Config's.

    With `state`, a folder, or `store`, the URL of a database, it stores responses in a store of that kind, and goes on
    from what is there; with `snapshots` its KV cache too. With `keys` (name -> key) clients need one. The test fails
    after `patience` seconds.
    """
    stored = {} if state or "store" in settings else {"store": "off"}
    config = msgspec.structs.replace(Config(model=NAME), state_dir=state, **stored, **settings)
    model = model or ScriptedModel()
    place = store_place(config)
    kv = Snapshots(state / "kv", "a scripted model", 1_000_000) if state and snapshots else None
    http = http_options(config)
    described = {"model": NAME, "engine": "scripted"}
    metrics = PrometheusMetrics("1.2", described, http.refusals) if config.metrics else None
    ready = Ready()
    with listening_sockets(config.hosts, 0, {}) as listening, contextlib.ExitStack() as stack:
        port, responses = listening.port, None
        if place is not None:
            store = open_store(place, kind, f"http://127.0.0.1:{port}")
            responses = AsyncStore(stack.enter_context(contextlib.closing(store)))
        engine, app = wired(model, config, responses, template, kv, cache_bytes, keys, metrics, state)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(daemon.run, config, listening, engine, app, ready, options=http))
            try:
                with trio.fail_after(patience):
                    await ready.event.wait()
                    model.decoded.clear()  # the warm-up
                    yield Running(port, engine, app, model, config)
            finally:
                if isinstance(model, PacedModel):
                    model.go()
            nursery.cancel_scope.cancel()


class Head(Struct, frozen=True):
    """The beginning of an answer. Names of headers are in lower case."""

    version: str
    status: int
    headers: dict[str, str]


class Answer(Struct, frozen=True):
    """A whole answer. `chunks` are what it came in, where its transfer encoding tells; else there is one."""

    head: Head
    chunks: list[bytes]

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> dict[str, str]:
        return self.head.headers

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events of a stream that passed all checks of `wire`."""
        return wire.events(self.body)

    @property
    def text(self) -> str:
        return text(self.events[-1]["response"] if "event-stream" in self.headers["content-type"] else self.json)


class Closed(AssertionError):
    """The server closed in the middle of an answer."""


class Client:
    """One connection. It sends the given bytes and reads HTTP/1.1 strictly (RFC 9112)."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = b""
        self._head: Head | None = None

    @classmethod
    async def to(cls, running: Server) -> Self:
        return cls(await trio.open_tcp_stream("127.0.0.1", running.port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stream.aclose()

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def half_close(self) -> None:
        assert isinstance(self._stream, trio.SocketStream)
        await self._stream.send_eof()

    async def leave(self) -> None:
        """Close without a word, even over TLS."""
        await trio.aclose_forcefully(self._stream)

    async def reset(self) -> None:
        """Close by RST instead of FIN."""
        assert isinstance(self._stream, trio.SocketStream)
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()

    async def request(self, method: str, path: str, body: bytes | None = None, *headers: str) -> None:
        await self.send(request(method, path, body, *headers))

    async def create(self, **body: Any) -> None:
        """Ask for a response, and don't wait for it."""
        await self.request("POST", "/v1/responses", encode(**body))

    async def head(self) -> Head:
        """The next answer's beginning; 100 Continue counts as one."""
        status_line, *lines = (await self._until(b"\r\n\r\n")).decode("ascii").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header twice: {lines}"
        self._head = Head(version, int(status), headers)
        return self._head

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await self._until(b"\r\n"), 16)
        data = await self._exactly(size)
        assert await self._exactly(2) == b"\r\n"
        return data

    async def read_past(self, mark: bytes) -> None:
        """Read raw bytes up to a mark."""
        await self._until(mark)

    async def frame(self, kind: str) -> bytes:
        """Read on to the chunk with an event of that type."""
        while chunk := await self.chunk():
            if f"event: {kind}\n".encode() in chunk:
                return chunk
        raise AssertionError(f"the stream ended without {kind}")

    async def created(self) -> tuple[str, bytes]:
        """The beginning of a stream: the response's id, and the first chunk."""
        await self.head()
        chunk = await self.chunk()
        return json.loads(wire.parse_sse(chunk)[0].data)["response"]["id"], chunk

    async def rest_of_stream(self) -> bytes:
        """Return the rest of a chunked body."""
        body = b""
        while chunk := await self.chunk():
            body += chunk
        return body

    async def answer(self, method: str = "POST") -> Answer:
        head = await self.head()
        return Answer(head, await self._chunks(head, method))

    async def some(self) -> bytes:
        """Return the bytes that are buffered, else the next ones; none at the end."""
        data, self._buffer = self._buffer, b""
        return data or bytes(await self._stream.receive_some())

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        while data := await self._stream.receive_some():
            self._buffer += data
        data, self._buffer = self._buffer, b""
        return data

    async def _chunks(self, head: Head, method: str) -> list[bytes]:
        if method == "HEAD" or head.status in (204, 304):
            return []
        if head.headers.get("transfer-encoding") == "chunked":
            chunks = []
            while chunk := await self.chunk():
                chunks.append(chunk)
            return chunks
        if (length := head.headers.get("content-length")) is not None:
            return [await self._exactly(int(length))]
        return [await self.rest()]

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            await self._receive()
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def _receive(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise Closed(f"after {self._buffer!r}")
        self._buffer += data


def request(method: str, path: str, body: bytes | None = None, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if method == "POST" and not any(header.lower().startswith("content-type:") for header in headers):
        lines.append("Content-Type: application/json")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def encode(**body: Any) -> bytes:
    """A request's body: about the scripted model, unless it says otherwise."""
    return json.dumps({"model": NAME} | body).encode()


async def exchange(running: Server, method: str, path: str, body: bytes | None = None, *headers: str) -> Answer:
    """One request on a connection of its own."""
    async with await Client.to(running) as client:
        await client.request(method, path, body, *headers)
        return await client.answer(method)


async def get(running: Server, path: str) -> Answer:
    return await exchange(running, "GET", path)


async def delete(running: Server, path: str) -> Answer:
    return await exchange(running, "DELETE", path)


async def post(running: Server, **body: Any) -> Answer:
    """A POST to /v1/responses."""
    return await exchange(running, "POST", "/v1/responses", encode(**body))


def text(response: dict[str, Any]) -> str:
    """All text of a Response's messages."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


def prompt_text(model: ScriptedModel) -> str:
    """Return all text that the model has in one slot at last."""
    tokens: list[int] = []
    for chunk in model.decoded:
        tokens[chunk.position :] = chunk.tokens
    return bytes(token for token in tokens if token < 256).decode()


def frames(body: bytes) -> list[bytes]:
    """Return the frames of a stream, including [DONE]."""
    *whole, rest = body.split(b"\n\n")
    assert rest == b""
    return [frame + b"\n\n" for frame in whole]


def behind(body: bytes, number: int) -> bytes:
    """Return the events of a stream after the event with that number."""
    *events, done = frames(body)
    rest = events[number + 1 :] or events[-1:]
    if number >= len(events) - 1:
        rest = [re.sub(rb'"sequence_number":\d+', b'"sequence_number":%d' % (number + 1), rest[0], count=1)]
    return b"".join([*rest, done])


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def statuses(log: str) -> list[int]:
    """Return the status of each request for a response in a log of level DEBUG."""
    line = r" req_\w+ \S+ [A-Z]+ /v1/responses\S* (\d+) .*?[\d.]+ ms(?:; .*)?$"
    return [int(status) for status in re.findall(line, log, re.MULTILINE)]


@cache
def _unused_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def official_client(url: str, *, api_key: str = "none", max_retries: int = 0, **options: Any) -> openai.OpenAI:
    """Return openai-python's client of a server without TLS.

    All share one TLS context, which no connection uses: a context of its own reads 140 certificates, in 22 ms.
    """
    http = openai.DefaultHttpxClient(verify=_unused_context())
    return openai.OpenAI(base_url=url, api_key=api_key, max_retries=max_retries, http_client=http, **options)


def official_async_client(url: str, **options: Any) -> openai.AsyncOpenAI:
    """Return openai-python's asynchronous client, as `official_client` does."""
    http = openai.DefaultAsyncHttpxClient(verify=_unused_context())
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http, **options)
