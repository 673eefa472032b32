"""Fronts over fronts: a request that comes back to a front ends there, and a chain of fronts answers."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from server import daemon
from server.api.app import App
from server.config.config import Config
from server.listening.sockets import listening_sockets
from server.upstream.generator import CheckIntervals
from server.upstream.upstreams import connect
from tests.server.upstream.test_presence import Front, answers, free_port, known, until_known, upstream
from tests.support.helpers import PATIENCE, Ready, post

pytestmark = pytest.mark.slow

LOOP = "The request has been here before: this server is among its own upstreams; correct --upstream."


@asynccontextmanager
async def fronts(*others: tuple[str, ...]) -> AsyncIterator[list[Front]]:
    """Fronts that have each other as upstreams: `"0"` is the URL of the first one."""
    ports = [free_port() for _ in others]
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for port, names in zip(ports, others, strict=True):
            urls = [f"http://127.0.0.1:{ports[int(name)]}" if name.isdecimal() else name for name in names]
            config = Config(upstreams=tuple(urls), upstream_model="m", store="off")
            found = await trio.to_thread.run_sync(connect, config)
            generator, ready = found.generator(CheckIntervals(healthy=0.1, failed=0.02)), Ready()
            app = App(config, generator, found, None)
            one = stack.enter_context(listening_sockets(config.hosts, port, {}))
            nursery.start_soon(daemon.run, config, one, generator, app, ready)
            with trio.fail_after(PATIENCE):
                await ready.event.wait()
        yield [Front(port) for port in ports]
        nursery.cancel_scope.cancel()


async def until_healthy(server: Front) -> None:
    for _ in itertools.count():
        if all(healthy for healthy, _, _ in await known(server)):
            return
        await trio.sleep(0.02)


async def test_front_gets_no_requests_of_its_own() -> None:
    async with upstream(answers()) as real, fronts((real.url, "0")) as (server,):
        url = f"http://127.0.0.1:{server.port}"
        error = f"The upstream {url} answered with status 508: {LOOP}"
        await until_known(server, (True, (), ""), (False, (), error))
        statuses = [(await post(server, model="m", input="Hi", prompt_cache_key=f"{n}")).status for n in range(8)]
    assert statuses == [200] * 8


async def test_front_alone_with_itself_is_never_ready() -> None:
    async with fronts(("0",)) as (server,):
        await trio.sleep(0.1)
        answer = await post(server, model="m", input="Hi")
    assert (answer.status, answer.json["error"]["code"]) == (503, "upstream_busy")


async def test_fronts_that_stand_in_for_each_other_answer_each_conversation() -> None:
    async with upstream(answers()) as real, fronts((real.url, "1"), (real.url, "0")) as (first, second):
        await until_healthy(first)
        await until_healthy(second)
        real.asked.clear()
        texts = {(await post(first, model="m", input="Hi", prompt_cache_key=f"{n}")).text for n in range(8)}
    assert (texts, len(real.asked)) == ({"Hello"}, 8)
