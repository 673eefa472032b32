"""Upstreams that are away at the start, come later, and come back as others: what is known about each of them."""

import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from server import daemon
from server.api.app import App
from server.config.config import Config
from server.listening.sockets import listening_sockets
from server.store.async_store import AsyncStore
from server.upstream.discovery import find_models
from server.upstream.forms import ChatForm
from server.upstream.generator import CheckIntervals
from server.upstream.transport import Address, UpstreamClient
from server.upstream.upstreams import NoUpstream, connect
from tests.server.upstream.scripted_upstream import TIMEOUTS, Asked, Play, ScriptedUpstream, says, status
from tests.server.upstream.test_probe import capable
from tests.server.upstream.token_upstreams import tokenizer_file
from tests.support.helpers import PATIENCE, Answer, Ready, get, open_store, post, text


class Front(msgspec.Struct, frozen=True):
    port: int


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def answers(*, refused: Collection[str] = ()) -> Play:
    """Answer probes and streams; refuse requests with some fields."""

    async def play(stream: trio.SocketStream, asked: Asked) -> None:
        if any(name in asked.body for name in refused):
            await status(400)(stream, asked)
        elif "Paris" in json.dumps(asked.body.get("messages")) and not asked.body.get("stream"):
            await status(200, json.dumps(capable(asked.body)).encode())(stream, asked)
        else:
            await says("Hello")(stream, asked)

    return play


def models(name: str = "m", **fields: Any) -> dict[str, Any]:
    return {"data": [{"id": name, "owned_by": "vllm", **fields}]}


@asynccontextmanager
async def front(*ports: int, state: Path | None = None, **settings: Any) -> AsyncIterator[Front]:
    """A daemon before upstreams at these ports, which it asks as the command does."""
    urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
    stored = {} if state else {"store": "off"}
    config = msgspec.structs.replace(Config(upstreams=urls), state_dir=state, **stored, **settings)
    found = await trio.to_thread.run_sync(connect, config)
    store = open_store(state / "responses.db") if state else None
    with (
        contextlib.closing(store) if store else contextlib.nullcontext(),
        listening_sockets(config.hosts, 0, {}) as listening,
    ):
        generator, ready = found.generator(CheckIntervals(healthy=0.1, failed=0.02)), Ready()
        app, port = App(config, generator, found, AsyncStore(store) if store else None), listening.port
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run, config, listening, generator, app, ready)
            with trio.fail_after(PATIENCE):
                await ready.event.wait()
                yield Front(port)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def upstream(play: Play, listed: object = None, port: int = 0) -> AsyncIterator[ScriptedUpstream]:
    async with trio.open_nursery() as nursery:
        server = ScriptedUpstream([play], listed or models(), port)
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()


async def serving(
    server: ScriptedUpstream, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until the scope is cancelled that the task starts with."""
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        task_status.started(nursery.cancel_scope)


async def answered(server: Front, **body: Any) -> Answer:
    """Ask again as long as the server asks to."""
    while (answer := await post(server, input="Hi", **body)).status == 503:
        assert int(answer.headers["retry-after"]) >= 1
        await trio.sleep(0.01)
    return answer


async def known(server: Front) -> list[tuple[bool, tuple[str, ...], str]]:
    """Return what the status page has about each upstream."""
    found = (await get(server, "/status")).json["upstreams"]
    return [(each["healthy"], tuple(each["lacking"]), each["error"]) for each in found]


async def until_known(server: Front, *expected: tuple[bool, tuple[str, ...], str]) -> None:
    for _ in itertools.count():
        if await known(server) == list(expected):
            return
        await trio.sleep(0.01)


async def listed(server: Front) -> list[tuple[str, object]]:
    """Return the names of the models, and the fields that each lacks."""
    return [(each["id"], each["meta"].get("lacking")) for each in (await get(server, "/v1/models")).json["data"]]


def refusal(port: int) -> str:
    return f"The upstream http://127.0.0.1:{port} cannot be reached (Connection refused)."


@pytest.mark.slow
async def test_front_starts_before_its_upstream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with front(port, state=tmp_path) as server:
        assert (await get(server, "/ready")).status == 200
        assert await listed(server) == []
        assert await known(server) == [(False, (), refusal(port))]
        early = await post(server, model="m", input="Hi", stream=True)
        assert (early.status, early.headers["retry-after"]) == (503, "2")
        assert early.json["error"]["code"] == "upstream_busy"
        assert early.json["error"]["message"] == f"No upstream can be used now. {refusal(port)}"
        assert (await get(server, "/v1/responses/resp_none")).status == 404, "the store is there"
        async with upstream(answers(refused=["seed"]), port=port):
            answer = await answered(server, model="m", seed=5)
            assert (answer.status, text(answer.json)) == (200, "Hello")
            assert answer.json["responsed"]["upstream"] == ["seed"]
            assert await listed(server) == [("m", ["seed"])]
            assert await known(server) == [(True, ("seed",), "")]
            assert (await get(server, "/version")).json["model"] == "m"
    assert "no upstream answers now: requests get status 503 until one does" in caplog.messages


@pytest.mark.slow
async def test_upstream_that_was_away_is_probed_once_it_answers() -> None:
    late = free_port()
    async with upstream(answers()) as first, front(first.port, late) as server:
        assert await known(server) == [(True, (), ""), (False, (), refusal(late))]
        assert (await post(server, model="m", input="Hi", seed=5)).status == 200
        async with upstream(answers(refused=["seed"]), port=late) as second:
            await until_known(server, (True, (), ""), (True, ("seed",), ""))
            assert await listed(server) == [("m", ["seed"])]
            first.asked.clear()
            second.asked.clear()
            answer = await post(server, model="m", input="Hi", seed=5)
    assert answer.json["responsed"]["upstream"] == ["seed"]
    assert ["seed" in asked.body for asked in (*first.asked, *second.asked)] == [False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "name", "lacking"),
    [
        (models(), models(max_model_len=77), "m", ["seed"]),  # another version
        (models(), models("n"), "n", ["seed"]),  # another model
        (models(), models(created=9), "m", None),  # the model of before
    ],
)
async def test_upstream_that_comes_back_as_another_is_probed_again(
    before: object, after: object, name: str, lacking: object
) -> None:
    async with trio.open_nursery() as nursery:
        old = ScriptedUpstream([answers()], before)
        running: trio.CancelScope = await nursery.start(serving, old)
        async with front(old.port) as server:
            assert await listed(server) == [("m", None)]
            running.cancel()
            while (await post(server, input="Hi")).status == 200:  # until its socket is closed
                pass
            assert await listed(server) == [("m", None)], "it may come back as it was"
            scope = await nursery.start(serving, ScriptedUpstream([answers(refused=["seed"])], after, old.port))
            await until_known(server, (True, ("seed",) if lacking else (), ""))
            assert await listed(server) == [(name, lacking)]
            scope.cancel()


async def test_upstream_that_loads_its_model_is_asked_later() -> None:
    port = free_port()

    class Loading(ScriptedUpstream):
        async def _answer(self, stream: trio.SocketStream, asked: Asked) -> None:
            await status(503, b'{"error":{"message":"Loading model"}}')(stream, asked)

    async with trio.open_nursery() as nursery:
        await nursery.start(Loading([says("-")], port=port).serve)
        async with front(port) as server:
            answer = await post(server, model="m", input="Hi")
            assert (answer.status, "Loading model" in answer.json["error"]["message"]) == (503, True)
            nursery.cancel_scope.cancel()


async def test_front_of_tokens_starts_before_its_upstream(tmp_path: Path) -> None:
    port = free_port()
    form: dict[str, Any] = {"upstream_api": "completions", "tokenizer": tokenizer_file(tmp_path), "upstream_model": "m"}
    async with front(port, **form) as server:
        assert [name for name, _ in await listed(server)] == ["m"]
        assert (await post(server, model="m", input="Hi")).status == 503


class HalfDead(ScriptedUpstream):
    """Accepts conversations and answers none; once it has one, it lists no models either."""

    async def _answer(self, stream: trio.SocketStream, asked: Asked) -> None:
        if "messages" in (asked.body or {}):
            self.asked.append(asked)
            await trio.sleep_forever()
        elif self.asked:
            await status(503)(stream, asked)
        else:
            await super()._answer(stream, asked)


@pytest.mark.slow
async def test_upstream_that_answers_no_more_is_left_while_its_requests_wait() -> None:
    async with upstream(answers()) as second, trio.open_nursery() as nursery:
        first = ScriptedUpstream([answers()], models())
        running: trio.CancelScope = await nursery.start(serving, first)
        async with front(first.port, second.port) as server:
            running.cancel()
            dead = HalfDead([], models(), first.port)
            await nursery.start(dead.serve)
            for number in itertools.count():
                if dead.asked:
                    break
                nursery.start_soon(partial(post, server, model="m", input="Hi", prompt_cache_key=f"{number}"))
                await trio.sleep(0.01)
            await until_known(server, (False, (), ""), (True, (), ""))
            nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_upstream_that_does_not_describe_its_model_is_away() -> None:
    class Undescribed(ScriptedUpstream):
        async def _answer(self, stream: trio.SocketStream, asked: Asked) -> None:
            if asked.path == "/version":
                await trio.sleep_forever()
            await super()._answer(stream, asked)

    async with trio.open_nursery() as nursery:
        server = Undescribed([answers()], models())
        await nursery.start(server.serve)
        (found,) = await find_models([UpstreamClient(Address.of(server.url), TIMEOUTS)], None, ChatForm().probe)
        nursery.cancel_scope.cancel()
    assert (found.error, found.away) == (f"The upstream {server.url} has not described its model for 5 s.", True)


@pytest.mark.slow
async def test_upstream_with_another_model_gets_no_requests() -> None:
    late = free_port()
    async with upstream(answers()) as first, front(first.port, late, upstream_model="m") as server:
        async with upstream(answers(), models("other"), late) as second:
            error = f"The upstream {second.url} has no model 'm'; it has other."
            await until_known(server, (True, (), ""), (False, (), error))
        for number in range(8):
            assert (await post(server, model="m", input="Hi", prompt_cache_key=f"{number}")).status == 200
    assert second.asked == []


async def test_upstream_that_is_named_twice_is_one() -> None:
    """Twice the same labels would break the metrics."""
    async with upstream(answers()) as server:
        urls = (server.url, f"{server.url}/", f"HTTP://{server.url[7:]}/v1", f"{server.url}/v2")
        found = await trio.to_thread.run_sync(connect, Config(upstreams=urls))
    assert [each.url for each in found.registry.replicas] == [server.url, f"{server.url}/v2"]


async def test_start_fails_if_no_wait_would_help() -> None:
    async with upstream(answers()) as server:
        config = Config(upstreams=(server.url,), upstream_model="other")
        with pytest.raises(NoUpstream, match="has no model 'other'; it has m"):
            await trio.to_thread.run_sync(connect, config)
