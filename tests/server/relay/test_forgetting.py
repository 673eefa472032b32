"""Prompts of deleted responses and conversations, in the prefix caches of all servers on a database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from server.relay.forgetting import MARK_NAME
from server.store import async_store
from tests.server.store.cluster import Cluster
from tests.support.helpers import Running, delete, encode, exchange, post, served

pytestmark = pytest.mark.slow

FIRST, SECOND = "The code word is cobalt. " * 3, "Say it again."
Maker: TypeAlias = Callable[[Running, Running], Awaitable[str]]
"""Function that asks two servers, and returns the path to delete."""


async def cached(server: Running) -> int:
    """Return the cached tokens of a request that begins as the deleted ones."""
    answer = await post(server, store=False, input=FIRST)
    return int(answer.json["usage"]["input_tokens_details"]["cached_tokens"])


async def chained(first: Running, second: Running) -> str:
    """Make a response at one server and its successor at the other."""
    made = (await post(first, input=FIRST)).json
    made = (await post(second, input=SECOND, previous_response_id=made["id"])).json
    return f"/v1/responses/{made['id']}"


async def in_conversation(first: Running, second: Running) -> str:
    made = (await exchange(first, "POST", "/v1/conversations", b"{}")).json
    for server in (first, second):
        await post(server, input=FIRST, conversation=made["id"])
    return f"/v1/conversations/{made['id']}"


async def item_of_conversation(first: Running, second: Running) -> str:
    item = {"type": "message", "role": "user", "content": FIRST}
    made = (await exchange(first, "POST", "/v1/conversations", encode(items=[item]))).json
    for server in (first, second):
        await post(server, input=SECOND, conversation=made["id"])
    listed = (await exchange(first, "GET", f"/v1/conversations/{made['id']}/items?order=asc", None)).json
    return f"/v1/conversations/{made['id']}/items/{listed['data'][0]['id']}"


async def with_cache_key(first: Running, second: Running) -> str:
    """Make a response whose affinity group the store does not show."""
    made = (await post(first, input=FIRST, prompt_cache_key="key")).json
    await post(second, input=FIRST, prompt_cache_key="key")
    return f"/v1/responses/{made['id']}"


MAKERS = [chained, in_conversation, item_of_conversation, with_cache_key]


@asynccontextmanager
async def two(url: str, folder: Path) -> AsyncIterator[tuple[Running, Running]]:
    """Run two servers that restore what they wrote into the folder."""
    async with (
        served(store=url, state=folder / "a", snapshots=True) as a,
        served(store=url, state=folder / "b", snapshots=True) as b,
    ):
        for each in "ab":
            await followed(folder / each, 0)
        yield a, b


async def followed(state: Path, number: int) -> None:
    """Wait until a server has forgotten the first deletions."""
    with trio.fail_after(20):
        while _number(state) < number:  # noqa: ASYNC110  # the file has no event
            await trio.sleep(0.01)


def _number(state: Path) -> int:
    """Return the number in a server's file; -1 without one."""
    mark = state / MARK_NAME
    return int(mark.read_text()) if mark.exists() else -1


@pytest.mark.parametrize("make", MAKERS[:3])
async def test_deleted_prompt_is_forgotten_by_all_servers(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Maker
) -> None:
    monkeypatch.setattr(async_store, "BEAT_SECONDS", 0.05)
    url = cluster.create().url
    async with two(url, tmp_path) as (a, b), served(store=url) as c:
        path = await make(a, b)
        assert (await delete(c, path)).status == 200
        for server, state in ((a, "a"), (b, "b")):
            await followed(tmp_path / state, 1)
            assert await cached(server) < 20


async def test_prompt_that_is_not_deleted_stays_cached(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_store, "BEAT_SECONDS", 0.05)
    url = cluster.create().url
    async with two(url, tmp_path) as (a, b), served(store=url) as c:
        await chained(a, b)
        other = (await post(c, input="Hello")).json["id"]
        assert (await delete(c, f"/v1/responses/{other}")).status == 200
        for server, state in ((a, "a"), (b, "b")):
            await followed(tmp_path / state, 1)
            assert await cached(server) > 60
    async with two(url, tmp_path) as (a, b):
        assert min([await cached(each) for each in (a, b)]) > 60, "it was written and restored"


@pytest.mark.parametrize("make", MAKERS)
async def test_server_that_was_stopped_forgets_at_its_next_start(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Maker
) -> None:
    monkeypatch.setattr(async_store, "BEAT_SECONDS", 0.05)
    url = cluster.create().url
    async with two(url, tmp_path) as (a, b):
        path = await make(a, b)
    assert all(list((tmp_path / each / "kv").glob("*.kv")) for each in "ab"), "the prompt was written"
    async with served(store=url) as c:
        assert (await delete(c, path)).status == 200
    async with two(url, tmp_path) as (a, b):
        for server, state in ((a, "a"), (b, "b")):
            await followed(tmp_path / state, 1)
            assert await cached(server) < 20
