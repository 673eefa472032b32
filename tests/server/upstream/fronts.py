"""Fronts in the test: daemons before two daemons with equal scripted models, which generate by chat completions.

A probe sends twenty requests to each upstream, and finds the same for each front. So fronts state it; `test_fronts.py`
compares.
"""

import contextlib
import copy
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
import trio

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from server import daemon
from server.api.app import App
from server.config.config import Config
from server.listening.sockets import listening_sockets
from server.store.async_store import AsyncStore
from server.upstream.transport import MissingFields
from server.upstream.upstreams import connect
from tests.server.store.cluster import Cluster
from tests.server.upstream.token_upstreams import TokenUpstream, token_upstreams, tokenizer_file
from tests.support.helpers import PATIENCE, Ready, Running, open_store, served, store_place

CHAT_LACKS = MissingFields()
TOKENS_LACK = {
    "llama.cpp": MissingFields(ignored=frozenset({"grammar"})),
    **dict.fromkeys(("vLLM", "SGLang", "SGLang with new tokens"), MissingFields(ignored=frozenset({"repeat_last_n"}))),
}
"""Kind -> fields that the probe finds lacking."""
Served: TypeAlias = Callable[..., AbstractAsyncContextManager[Running]]
"""`served` of the embedded engine, `fronting`, or `balanced` with a cluster."""


@asynccontextmanager
async def fronting(
    model: ScriptedModel | None = None, *, template: str = scripted.TEMPLATE, **settings: Any
) -> AsyncIterator[Running]:
    """Serve as `helpers.served` does, with two upstreams, found as the command does; `settings` are those of the front.
    `model.decoded` has the entries of both upstreams, and `engine` is that of the first."""
    async with _upstreams(model, template) as upstreams, _front(upstreams, CHAT_LACKS, **settings) as running:
        yield running


@asynccontextmanager
async def token_fronting(
    model: ScriptedModel | None = None, *, template: str = scripted.TEMPLATE, kind: str = "llama.cpp", **settings: Any
) -> AsyncIterator[Running]:
    """Serve as `fronting` does, with two upstreams of a kind that continue tokens."""
    model = model or ScriptedModel()
    twin = copy.deepcopy(model)
    twin.decoded = model.decoded
    with tempfile.TemporaryDirectory() as folder:
        settings |= {"upstream_api": "completions", "tokenizer": tokenizer_file(Path(folder), template)}
        async with (
            token_upstreams([model, twin], kind) as upstreams,
            _front(upstreams, TOKENS_LACK[kind], **settings) as running,
        ):
            yield running


@asynccontextmanager
async def balanced(
    cluster: Cluster, model: ScriptedModel | None = None, *, template: str = scripted.TEMPLATE, **settings: Any
) -> AsyncIterator[Running]:
    """Serve as `fronting` does, with two fronts on one database behind a load balancer: one gets every second
    connection. `app` and `config` are those of the first."""
    settings["store"] = cluster.create().url
    async with (
        _upstreams(model, template) as upstreams,
        _front(upstreams, CHAT_LACKS, **settings) as first,
        _front(upstreams, CHAT_LACKS, **settings) as second,
        _balancer([first.port, second.port]) as port,
    ):
        yield msgspec.structs.replace(first, port=port)


@asynccontextmanager
async def _upstreams(model: ScriptedModel | None, template: str) -> AsyncIterator[list[Running]]:
    model = model or ScriptedModel()
    twin = copy.deepcopy(model)
    twin.decoded = model.decoded
    async with served(model, template=template) as first, served(twin, template=template) as second:
        yield [first, second]


@asynccontextmanager
async def _front(
    upstreams: Sequence[Running] | Sequence[TokenUpstream],
    lacking: MissingFields,
    *,
    state: Path | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    stored = {} if state or "store" in settings else {"store": "off"}
    urls = tuple(each.url for each in upstreams)
    config = msgspec.structs.replace(Config(upstreams=urls), state_dir=state, **stored, **settings)
    found = await trio.to_thread.run_sync(connect, config, lacking)
    first = upstreams[0]
    first.model.decoded.clear()  # the probe
    place, store = store_place(config), None
    with listening_sockets(config.hosts, 0, {}) as listening, contextlib.ExitStack() as stack:
        port = listening.port
        if place is not None:
            opened = open_store(place, address=f"http://127.0.0.1:{port}")
            store = AsyncStore(stack.enter_context(contextlib.closing(opened)))
        generator, ready = found.generator(), Ready()
        app = App(config, generator, found, store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run, config, listening, generator, app, ready)
            with trio.fail_after(PATIENCE):
                await ready.event.wait()
                yield Running(port, first.engine, app, first.model, config)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _balancer(ports: Sequence[int]) -> AsyncIterator[int]:
    """Relay each connection to the next port; yield the port to connect to."""
    targets = cycle(ports)

    async def relay(client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", next(targets))
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server, nursery.cancel_scope)
            nursery.start_soon(pump, server, client, nursery.cancel_scope)

    async def pump(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in source:
                await sink.send_all(data)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, relay, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


WAYS = [
    pytest.param(served, id="embedded"),
    pytest.param(fronting, marks=pytest.mark.slow, id="front"),
    pytest.param(token_fronting, marks=pytest.mark.slow, id="front that sends tokens"),
    pytest.param(balanced, marks=pytest.mark.slow, id="fronts on PostgreSQL"),
]
"""Ways to serve: by the engine in the process, by upstreams in both forms, and by two fronts on one database."""


def chosen_way(request: pytest.FixtureRequest) -> Served:
    """Return the way of `WAYS` that is the parameter of a fixture."""
    way: Served = request.param
    return partial(balanced, request.getfixturevalue("cluster")) if way is balanced else way
