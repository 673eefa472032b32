"""Other servers that fall silent in the middle of an answer, as one whose machine has lost its power."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from server.relay import peer, relay
from tests.server.relay.test_relay import begun, move, two, unfinished
from tests.server.store.cluster import Cluster
from tests.server.upstream.scripted_upstream import HEAD
from tests.support.helpers import PATIENCE, Client, PacedModel, exchange, get

BEGINNING = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"id":'


@asynccontextmanager
async def silent(sent: bytes) -> AsyncIterator[str]:
    """Serve the beginning of each answer and nothing more; yield the URL."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(sent)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_answer_whose_rest_does_not_come_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "BODY_SECONDS", 0.01)
    with trio.fail_after(PATIENCE):
        async with silent(BEGINNING) as url, peer.ask(url, "GET", "/v1/responses/resp_1", []) as answer:
            with pytest.raises(peer.PeerFailure, match="the rest of its answer does not come"):
                await answer.body()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_answer_whose_head_does_not_come_is_a_failure(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "HEAD_SECONDS", 0.01)
    with trio.fail_after(PATIENCE), pytest.RaisesGroup(pytest.RaisesExc(peer.PeerFailure, match="does not answer in")):
        async with silent(sent) as url, peer.ask(url, "GET", "/v1/responses/resp_1", []):
            pass


@pytest.mark.slow
async def test_silent_server_costs_no_poll(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "BODY_SECONDS", 0.05)
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, _), silent(BEGINNING) as url:
        await unfinished(b, id_)
        move(cluster, a.config.store, url)
        assert (await get(b, f"/v1/responses/{id_}")).json["status"] == "in_progress"
        refused = await exchange(b, "POST", f"/v1/responses/{id_}/cancel", b"")
        assert refused.status == 503
        assert "does not answer: the rest of its answer does not come" in refused.json["error"]["message"]
        model.go()
        await client.rest_of_stream()


@pytest.mark.slow
async def test_stream_of_a_silent_server_has_its_end_from_the_database(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "SILENT_SECONDS", 0.05)
    model = PacedModel()
    async with two(cluster, model) as (a, b), begun(model, a) as (client, id_, first), silent(HEAD) as url:
        await unfinished(b, id_)
        move(cluster, a.config.store, url)
        async with await Client.to(b) as follower:
            await follower.request("GET", f"/v1/responses/{id_}?stream=true")
            await follower.head()
            model.go()
            assert await follower.rest_of_stream() == first + await client.rest_of_stream()
