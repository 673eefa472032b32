"""A scripted upstream on a real socket, and a daemon before it."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import trio
from msgspec import Struct

from engine.backends import scripted
from engine.chat_template import ChatTemplate
from server import daemon
from server.api.app import App
from server.config.config import Config
from server.listening.sockets import listening_sockets
from server.monitoring.metrics import PrometheusMetrics
from server.served_model import ModelSource
from server.store.async_store import AsyncStore
from server.upstream import chat
from server.upstream.chat.model import UpstreamModel
from server.upstream.generator import UpstreamGenerator
from server.upstream.replicas import Replica
from server.upstream.tokens import TokenModelSource, TokenUpstreams, kind_of
from server.upstream.transport.address import Address
from server.upstream.transport.attempt import Ask
from server.upstream.transport.client import ClientTimeouts, UpstreamClient
from tests.support.helpers import PATIENCE, Ready, open_store

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
GENERATING = ("/completions", "/completion", "/generate")
"""Ends of the paths that generate."""
TIMEOUTS = ClientTimeouts(connect=5, first_byte=5, idle=5, busy=0.01)


class Asked(Struct, frozen=True):
    """A request that reached the upstream."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Play: TypeAlias = Callable[[trio.SocketStream, Asked], Awaitable[None]]
"""Answer to a request. The connection stays open afterwards unless the function raises HangUp."""


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: Any) -> bytes:
    return chunked(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """Return a chunk of a chat completion."""
    return event({"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def call(index: int, name: str | None = None, arguments: str = "") -> bytes:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return delta(tool_calls=[{"index": index, "id": f"c{index}", "type": "function", "function": function}])


def token(*ids: int, finish: str | None = None) -> bytes:
    """Return a chunk of vLLM's completions with ids."""
    text = bytes(id_ for id_ in ids if 0 <= id_ < 256).decode(errors="ignore")
    return event({"choices": [{"index": 0, "text": text, "token_ids": ids, "finish_reason": finish}]})


def end(finish: str = "stop") -> bytes:
    """Return the rest of an answer: its reason, the usage and the last chunk."""
    return delta(finish) + event({"choices": [], "usage": USAGE}) + event(b"[DONE]") + LAST


def plays(*parts: bytes | float, close: bool = False) -> Play:
    """Return an answer that sends bytes, and waits for the seconds between them."""

    async def play(stream: trio.SocketStream, asked: Asked) -> None:
        for part in parts:
            if isinstance(part, bytes):
                await stream.send_all(part)
            else:
                await trio.sleep(part)
        if close:
            raise HangUp

    return play


def says(*texts: str) -> Play:
    return plays(HEAD, *(delta(content=text) for text in texts), end())


def status(code: int, body: bytes = b'{"error":{"message":"no"}}', *headers: str) -> Play:
    lines = [f"HTTP/1.1 {code} X", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return plays("\r\n".join([*lines, "", ""]).encode() + body)


class HangUp(Exception):
    """The upstream closes the connection."""


class ScriptedUpstream:
    """Plays one answer for each request to generate, in order, and the last one again and again."""

    def __init__(self, answers: Sequence[Play], models: object = None, port: int = 0, info: object = None) -> None:
        """`models`: body of the list of models, or the value that it encodes.

        `port`: that of an upstream before it; 0 for a free one. `info`: body of SGLang's settings; None for status 404.
        """
        self._answers = list(answers)
        models = {"data": [{"id": "m"}]} if models is None else models
        self._models = models if isinstance(models, bytes) else json.dumps(models).encode()
        self._info = None if info is None else json.dumps(info).encode()
        self.asked: list[Asked] = []
        """Requests to generate."""
        self.connections = 0
        self.port = port
        self.left = trio.Event()
        """Set once a client has closed a connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            self.port = listener.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, self._connection, [listener])
            task_status.started()

    async def _connection(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        buffer = b""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = await stream.receive_some()
                    if not data:
                        self.left.set()
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                first, *lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                size = int(headers.get("content-length", "0"))
                while len(buffer) < size:
                    buffer += await stream.receive_some()
                body, buffer = buffer[:size], buffer[size:]
                method, path, _ = first.split(" ")
                await self._answer(stream, Asked(method, path, headers, json.loads(body) if body else None))

    async def _answer(self, stream: trio.SocketStream, asked: Asked) -> None:
        if not asked.path.endswith(GENERATING):
            body = self._models if asked.path.endswith("/models") else None
            body = self._info if asked.path == "/server_info" else body
            await status(404 if body is None else 200, body or b"{}")(stream, asked)
            return
        self.asked.append(asked)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        hangs_up = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stream, nursery.cancel_scope)
            try:
                await answer(stream, asked)
            except (HangUp, trio.BrokenResourceError):
                hangs_up = True
            nursery.cancel_scope.cancel()
        if hangs_up:
            await stream.aclose()

    async def _watch(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        """End an answer whose client has left."""
        with contextlib.suppress(OSError):  # a reset
            await trio.lowlevel.wait_readable(stream.socket)
            if not await stream.socket.recv(1, trio.socket.MSG_PEEK):
                self.left.set()
                scope.cancel()


class Fronted(Struct, frozen=True):
    """A running daemon before scripted upstreams."""

    port: int
    upstreams: list[ScriptedUpstream]
    generator: UpstreamGenerator

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> list[Asked]:
        """Requests to the first upstream."""
        return self.upstreams[0].asked


def token_form(
    replicas: Sequence[Replica],
    n_ctx: int,
    n_slots: int,
    refused: frozenset[str],
    ignored: frozenset[str],
    has_grammars: bool = False,
) -> tuple[TokenModelSource, TokenUpstreams]:
    """Return the model and the way to ask for its tokens."""
    vocabulary = scripted.vocabulary()
    template = ChatTemplate(scripted.TEMPLATE, vocabulary)
    source = TokenModelSource(
        name="m",
        created=0,
        n_ctx=n_ctx,
        n_slots=n_slots,
        vocabulary=vocabulary,
        template=template,
        lacking=refused | ignored,
    )
    kinds = {each.url: kind_of("vllm", vocabulary) for each in replicas}
    chooses = "logit_bias" not in refused | ignored
    form = TokenUpstreams("m", len(vocabulary), vocabulary.end_tokens, kinds, refused, has_grammars, chooses)
    return source, form


async def works(replica: Replica) -> bool:
    """Return True: these upstreams are checked by their answers only."""
    return True


@asynccontextmanager
async def fronted(
    *answers: Play,
    others: Sequence[Sequence[Play]] = (),
    timeouts: ClientTimeouts = TIMEOUTS,
    state: Path | None = None,
    n_slots: int = 4,
    n_ctx: int = 4096,
    key: str = "",
    refused: frozenset[str] = frozenset(),
    ignored: frozenset[str] = frozenset(),
    tokens: bool = False,
    has_grammars: bool = False,
    **settings: Any,
) -> AsyncIterator[Fronted]:
    """A daemon before an upstream that plays `answers`, and one for each of the `others`.

    With `tokens` it asks them as vLLM servers that continue tokens of the scripted model, and may read our grammars.
    """
    upstreams = [ScriptedUpstream(script) for script in (answers, *others)]
    stored = {} if state else {"store": "off"}
    config = msgspec.structs.replace(Config(), state_dir=state, **stored, **settings)
    store = open_store(state / "responses.db") if state else None
    metrics = PrometheusMetrics("1.2", {"model": "m", "engine": "upstream"}, {}) if config.metrics else None
    ready = Ready()
    with (
        contextlib.closing(store) if store else contextlib.nullcontext(),
        listening_sockets(config.hosts, 0, {}) as listening,
    ):
        async with trio.open_nursery() as nursery:
            port = listening.port
            for upstream in upstreams:
                await nursery.start(upstream.serve)
            clients = [UpstreamClient(Address.of(each.url), timeouts, key) for each in upstreams]
            replicas = [Replica(client) for client in clients]
            model: ModelSource = UpstreamModel(
                name="m", created=0, n_ctx=n_ctx, n_slots=n_slots, refused=refused, ignored=ignored
            )
            ask: Ask = chat.ask
            if tokens:
                model, form = token_form(replicas, n_ctx, n_slots, refused, ignored, has_grammars)
                ask = form.ask
            generator = UpstreamGenerator(replicas, n_slots, ask, works)
            app = App(config, generator, model, AsyncStore(store) if store else None, metrics=metrics)
            nursery.start_soon(daemon.run, config, listening, generator, app, ready)
            with trio.fail_after(PATIENCE):
                await ready.event.wait()
                yield Fronted(port, upstreams, generator)
            nursery.cancel_scope.cancel()
