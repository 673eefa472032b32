"""A front in the test: a daemon before two daemons with equal scripted models, which generate by chat completions."""

import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import trio

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from server import daemon
from server.api.app import App
from server.config.config import Config
from server.listening.sockets import listening_sockets
from server.store.async_store import AsyncStore
from server.upstream.upstreams import connect
from tests.support.helpers import PATIENCE, Ready, Running, open_store, served, store_place

Served: TypeAlias = Callable[..., AbstractAsyncContextManager[Running]]
"""`served` of the embedded engine, or `fronting`."""


@asynccontextmanager
async def fronting(
    model: ScriptedModel | None = None,
    *,
    template: str = scripted.TEMPLATE,
    state: Path | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Serve as `helpers.served` does, with two upstreams, found and probed as the command does; `settings` are those of
    the front. `model.decoded` has the entries of both upstreams, and `engine` is that of the first."""
    model = model or ScriptedModel()
    twin = copy.deepcopy(model)
    twin.decoded = model.decoded
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(served(each, template=template)) for each in (model, twin)]
        stored = {} if state or "store" in settings else {"store": "off"}
        urls = tuple(each.url for each in upstreams)
        config = msgspec.structs.replace(Config(upstreams=urls), state_dir=state, **stored, **settings)
        upstream = await trio.to_thread.run_sync(connect, config)
        model.decoded.clear()  # the probe
        listening = stack.enter_context(listening_sockets(config.hosts, 0, {}))
        port = listening.port
        place, store = store_place(config), None
        if place is not None:
            opened = open_store(place, address=f"http://127.0.0.1:{port}")
            store = AsyncStore(stack.enter_context(contextlib.closing(opened)))
        generator, ready = upstream.generator(), Ready()
        app = App(config, generator, upstream.model, store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run, config, listening, generator, app, ready)
            with trio.fail_after(PATIENCE):
                await ready.event.wait()
                yield Running(port, upstreams[0].engine, app, model, config)
            nursery.cancel_scope.cancel()
