"""Responses in progress, seen through another server on the same database: followed, resumed, cancelled, deleted."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from server.store import async_store
from server.store.postgres import RETRY_SECONDS
from tests.server.api.test_reasoning import THINKS, thinker
from tests.server.api.test_reasoning_summary import ANSWER, SEALED, ask_again
from tests.server.api.tools.test_tools import evaluated
from tests.server.store.cluster import Cluster
from tests.support import wire
from tests.support.helpers import (
    Client,
    PacedModel,
    Running,
    behind,
    delete,
    encode,
    exchange,
    get,
    post,
    served,
)

pytestmark = pytest.mark.slow

TEXT = "Hello, all of you out there"


@asynccontextmanager
async def two(cluster: Cluster, model: PacedModel, **settings: Any) -> AsyncIterator[tuple[Running, Running]]:
    """Run two servers on a new database; the first one has the model."""
    url = cluster.create().url
    async with served(model, store=url, **settings) as a, served(store=url, **settings) as b:
        yield a, b


@asynccontextmanager
async def begun(model: PacedModel, server: Running, **body: Any) -> AsyncIterator[tuple[Client, str, bytes]]:
    """Begin a response whose model waits; yield its client, its id and its first chunk."""
    model.hold()
    async with await Client.to(server) as client:
        await client.create(input=TEXT, stream=True, **body)
        id_, first = await client.created()
        yield client, id_, first


async def unfinished(server: Running, response_id: str) -> None:
    """Wait until a response is in the database."""
    while (await get(server, f"/v1/responses/{response_id}")).status == 404:
        await trio.lowlevel.checkpoint()


async def test_follower_at_another_server_reads_the_same_bytes(cluster: Cluster) -> None:
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, first):
        await unfinished(b, id_)
        async with await Client.to(b) as follower, await Client.to(b) as late:
            await follower.request("GET", f"/v1/responses/{id_}?stream=true")
            assert (await follower.head()).status == 200
            await late.request("GET", f"/v1/responses/{id_}?stream=true&starting_after=2")
            model.allow(4)
            await follower.frame("response.output_text.delta")
            model.go()
            whole = first + await client.rest_of_stream()
            assert (await late.answer()).body == behind(whole, 2)
        assert (await get(b, f"/v1/responses/{id_}?stream=true")).body == whole
        assert (await get(b, f"/v1/responses/{id_}")).json == (await get(a, f"/v1/responses/{id_}")).json


async def test_follower_at_another_server_reads_every_event_once(cluster: Cluster) -> None:
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, first):
        await unfinished(b, id_)
        async with await Client.to(b) as follower:
            await follower.request("GET", f"/v1/responses/{id_}?stream=true")
            for _ in range(5):
                model.allow(1)
                await trio.sleep(0.01)
            model.go()
            assert (await follower.answer()).body == first + await client.rest_of_stream()


async def test_response_in_progress_is_retrieved_and_not_continued(cluster: Cluster) -> None:
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, _):
        await unfinished(b, id_)
        model.allow(9)
        await client.frame("response.output_text.delta")
        both = [(await get(server, f"/v1/responses/{id_}")).json for server in (a, b)]
        assert both[0] == both[1]
        assert both[1]["status"] == "in_progress"
        listed = (await get(b, f"/v1/responses/{id_}/input_items")).json["data"]
        assert [item["content"][0]["text"] for item in listed] == [TEXT]
        chained = await post(b, input="And?", previous_response_id=id_)
        assert (chained.status, chained.json["error"]["message"]) == (
            400,
            f"Response '{id_}' is still in progress: wait until it has ended.",
        )
        model.go()
        await client.rest_of_stream()
        assert (await post(b, input="And?", previous_response_id=id_)).status == 200


async def test_background_response_is_cancelled_through_another_server(cluster: Cluster) -> None:
    model = PacedModel()
    async with two(cluster, model) as (a, b):
        model.hold()
        created = (await post(a, input=TEXT, background=True)).json
        path = f"/v1/responses/{created['id']}"
        assert (await get(b, path)).json["status"] in ("queued", "in_progress")
        cancelled = await exchange(b, "POST", f"{path}/cancel", b"")
        assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
        model.go()
        assert (await get(a, path)).json == cancelled.json == (await get(b, path)).json


async def test_cancelling_a_foreground_response_is_refused_at_both_servers(cluster: Cluster) -> None:
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, _):
        await unfinished(b, id_)
        there, here = [(await exchange(each, "POST", f"/v1/responses/{id_}/cancel", b"")).json for each in (a, b)]
        assert there == here
        assert "it was created without `background: true`" in here["error"]["message"]
        model.go()
        await client.rest_of_stream()


async def test_response_in_progress_is_deleted_through_another_server(cluster: Cluster) -> None:
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, _):
        await unfinished(b, id_)
        assert (await delete(b, f"/v1/responses/{id_}")).json["deleted"] is True
        assert b"event: response.incomplete" in await client.rest_of_stream()
        assert {(await get(each, f"/v1/responses/{id_}")).status for each in (a, b)} == {404}


async def test_keys_of_the_client_are_forwarded(cluster: Cluster) -> None:
    model = PacedModel()
    keys, header = {"ann": "0123456789abcdef"}, "Authorization: Bearer 0123456789abcdef"
    async with two(cluster, model, keys=keys) as (a, b):
        model.hold()
        made = await exchange(a, "POST", "/v1/responses", encode(input=TEXT, background=True), header)
        path = f"/v1/responses/{made.json['id']}"
        assert (await get(b, path)).status == 401
        assert (await exchange(b, "GET", path, None, header)).json["status"] in ("queued", "in_progress")
        model.go()


async def test_request_that_was_relayed_is_not_relayed_again(cluster: Cluster) -> None:
    """A server that advertises the balancer's URL would send it in a circle."""
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, _):
        await unfinished(b, id_)
        for query in ("", "?stream=true"):
            refused = await exchange(b, "GET", f"/v1/responses/{id_}{query}", None, "X-Responsed-Relayed: 1")
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert f"http://127.0.0.1:{a.port} is not the server that it should be" in refused.json["error"]["message"]
        model.go()
        await client.rest_of_stream()


async def test_server_that_does_not_answer_costs_no_poll_and_no_stream(cluster: Cluster) -> None:
    """A poll gets the stored response; a stream waits for the end in the database."""
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, first):
        await unfinished(b, id_)
        move(cluster, a.config.store, "http://127.0.0.1:1")
        assert (await get(b, f"/v1/responses/{id_}")).json["status"] == "in_progress"
        refused = await exchange(b, "POST", f"/v1/responses/{id_}/cancel", b"")
        message = f"The server that generates '{id_}' does not answer: it cannot be reached "
        assert (refused.status, refused.json["error"]["message"][: len(message)]) == (503, message)
        async with await Client.to(b) as follower:
            await follower.request("GET", f"/v1/responses/{id_}?stream=true")
            await follower.head()
            model.go()
            whole = first + await client.rest_of_stream()
            assert await follower.rest_of_stream() == whole


def move(cluster: Cluster, url: str | None, address: str) -> None:
    """Give all servers another address."""
    assert url is not None
    cluster.execute(f"UPDATE responsed.servers SET address = '{address}'", url.partition("@/")[2].partition("?")[0])


async def test_relayed_stream_of_a_server_that_stops_has_its_end(cluster: Cluster) -> None:
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, first):
        await unfinished(b, id_)
        async with await Client.to(b) as follower:
            await follower.request("GET", f"/v1/responses/{id_}?stream=true")
            await follower.head()
            await follower.frame("response.created")
            b.app.stop()
            *_, last, done = wire.parse_sse(await follower.rest_of_stream())
        failed = json.loads(last.data)
        assert (last.event, done.data) == ("response.failed", b"[DONE]")
        assert failed["response"]["error"]["message"] == "The server is shutting down; try again later."
        model.go()
        assert (first + await client.rest_of_stream()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("header", ["OpenResponses-Version: 1", "User-Agent: Bun/1.4.5"])
async def test_followers_names_of_events_are_those_it_reads(cluster: Cluster, header: str) -> None:
    url, model = cluster.create().url, PacedModel(lambda prompt: ANSWER)
    async with served(model, store=url, template=THINKS) as a, served(store=url) as b, begun(model, a) as made:
        client, id_, _ = made
        await unfinished(b, id_)
        async with await Client.to(b) as follower:
            await follower.request("GET", f"/v1/responses/{id_}?stream=true", None, header)
            assert (await follower.head()).status == 200
            model.go()
            body = await follower.rest_of_stream()
        assert b"event: response.reasoning.delta" in body
        assert b"event: response.reasoning_text.delta" in await client.rest_of_stream()


async def test_server_without_its_database_is_not_ready(cluster: Cluster) -> None:
    place = cluster.create()
    async with served(store=place.url, metrics=True) as running, served(store=place.url):
        response_id = (await post(running, input="Hi")).json["id"]
        assert b"responsed_store_servers 2.0" in (await get(running, "/metrics")).body
        assert (await get(running, "/ready")).status == 200
        name = place.url.partition("@/")[2].partition("?")[0]
        cluster.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cluster.disconnect(name)
        ready, stored = await get(running, "/ready"), await get(running, f"/v1/responses/{response_id}")
        assert (ready.status, stored.status) == (503, 503)
        assert stored.json["error"]["message"] == "The store cannot be read or written now: try again later."
        answer = await post(running, input="Hi")
        assert (answer.status, answer.json["store"]) == (200, False), "an answer does not depend on the database"
        cluster.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await trio.sleep(RETRY_SECONDS)
        assert (await get(running, "/ready")).status == 200
        assert (await get(running, f"/v1/responses/{response_id}")).status == 200


async def test_response_whose_end_the_database_did_not_take_is_not_in_progress(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_store, "BEAT_SECONDS", 0.05)
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, _):
        await unfinished(b, id_)
        name = str(a.config.store).partition("@/")[2].partition("?")[0]
        cluster.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cluster.disconnect(name)
        model.go()
        *_, last, _ = wire.parse_sse(await client.rest_of_stream())
        assert json.loads(last.data)["response"]["store"] is False
        cluster.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        while cluster.execute("SELECT 1 FROM responsed.responses", name):
            await trio.lowlevel.checkpoint()
        await trio.sleep(RETRY_SECONDS)
        assert {(await get(each, f"/v1/responses/{id_}")).status for each in (a, b)} == {404}


async def test_reasoning_that_one_server_sealed_is_opened_by_another(cluster: Cluster) -> None:
    url = cluster.create().url
    async with (
        served(thinker(ANSWER), store=url, template=THINKS) as a,
        served(thinker(ANSWER), store=url, template=THINKS) as b,
    ):
        first = (await post(a, input="Which?", store=False, include=SEALED)).json
        again = await ask_again(b, first["output"])
        assert b"They ask for two. Fine." in evaluated(b)
        assert "skipped" not in again.get("responsed", {})
