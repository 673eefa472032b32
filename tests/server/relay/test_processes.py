"""Two servers on one PostgreSQL database, as processes of their own: one of them is killed under load."""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from server.stream.replay import STOPPED
from tests.server.store.cluster import Cluster
from tests.support import wire
from tests.support.helpers import Client, Closed, get, post
from tests.support.processes import Daemon, serving
from tests.support.websockets import TERMINAL

pytestmark = pytest.mark.slow

CLIENTS = 12
TURNS = 6
DEAD_SECONDS = 40.0
"""Seconds until the others have noticed that a server died: a lease of 20 s, on a busy machine."""


@pytest.fixture(params=["embedded", "front"])
def servers(request: pytest.FixtureRequest, cluster: Cluster, tiny: Path, tmp_path: Path) -> Iterator[list[Daemon]]:
    """Run two servers on a database, with a model each, or with two upstreams."""
    embedded = ("--model", str(tiny), "--slots", "4", "--queue", "64", "--kv-snapshot-megabytes", "0")
    with ExitStack() as stack:

        def start(name: str, *flags: str) -> Daemon:
            (tmp_path / name).mkdir()
            return stack.enter_context(serving(tmp_path / name, "--alias", "scripted", *flags))

        flags: tuple[str, ...] = embedded
        if request.param == "front":
            upstreams = [start(name, *embedded, "--store", "off") for name in "cd"]
            flags = tuple(flag for each in upstreams for flag in ("--upstream", each.url))
        store = cluster.create().url
        yield [start(name, *flags, "--store", store) for name in "ab"]


class FollowedResponse(Struct):
    """A response that a client asked for."""

    id: str
    background: bool
    body: bytes = b""
    """Bytes of its stream, read at the server that was asked."""
    ended: bool = False
    followed: bytes = b""
    """Bytes of its stream, read at the other server."""


async def test_servers_share_responses_and_lose_none_when_one_is_killed(servers: list[Daemon]) -> None:
    """One test, since a server takes more time to start than to show either."""
    await check_that_responses_continue_at_any(servers)
    victim, survivor = servers
    seen: list[FollowedResponse] = []
    dice = random.Random(5)
    died = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(client_of, victim, survivor, seen, dice, died, nursery)
        await trio.sleep(3)
        victim.process.kill()
        victim.wait()
        died.set()
    assert any(each.ended for each in seen)
    assert any(not each.ended for each in seen)
    with trio.fail_after(DEAD_SECONDS):
        for each in seen:
            await check(survivor, each)
    assert (await post(survivor, input="hello", max_output_tokens=4)).status == 200


async def client_of(
    victim: Daemon,
    survivor: Daemon,
    seen: list[FollowedResponse],
    dice: random.Random,
    died: trio.Event,
    nursery: trio.Nursery,
) -> None:
    """Ask the victim for one response after the other, each followed at the survivor, until it dies."""
    with suppress(Closed, OSError, trio.BrokenResourceError):
        while True:
            async with await Client.to(victim) as client:
                tokens, background = dice.choice((5, 50, 3000)), dice.random() < 0.5
                await client.create(input="hello", stream=True, background=background, max_output_tokens=tokens)
                id_, first = await client.created()
                seen.append(each := FollowedResponse(id_, background, first))
                nursery.start_soon(follow, survivor, each, died)
                while chunk := await client.chunk():
                    each.body += chunk
                    each.ended = each.ended or b"data: [DONE]" in each.body


async def follow(server: Daemon, each: FollowedResponse, died: trio.Event) -> None:
    """Read the whole stream of a response at the other server, as soon as it is stored.

    It was never stored if it is missing when its server has died.
    """
    with trio.fail_after(DEAD_SECONDS):
        last = False
        while (answer := await get(server, f"/v1/responses/{each.id}?stream=true")).status == 404:
            if last:
                return
            await trio.sleep(0.1)
            last = died.is_set()
        each.followed = answer.body


async def check(server: Daemon, each: FollowedResponse) -> None:
    """Check that nothing is half there: the response is whole, or failed with one terminal event."""
    answer = await get(server, f"/v1/responses/{each.id}")
    if answer.status == 404:
        assert not each.ended
        assert not each.background
        return
    stored = answer.json
    assert stored["status"] in ("completed", "incomplete", "failed")
    if each.ended:
        assert stored["status"] != "failed"
        assert each.followed == each.body
    if stored["status"] == "failed":
        assert stored["error"]["message"] == STOPPED
    events = [json.loads(event.data) for event in wire.parse_sse(each.followed)[:-1]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"] == stored
    assert sum(event["type"] in TERMINAL for event in events) == 1


async def check_that_responses_continue_at_any(servers: list[Daemon]) -> None:
    """Check one conversation and one chain, whose turns alternate between the servers, and whose appends coincide."""
    conversation = (await post_to(servers[0], "/v1/conversations", {}))["id"]
    previous = None
    for turn in range(TURNS):
        answer = await post(servers[turn % 2], input=f"turn {turn}", previous_response_id=previous, max_output_tokens=5)
        assert answer.status == 200, answer.body
        previous = answer.json["id"]

    async def append(server: Daemon, number: int) -> None:
        answer = await post(server, input=f"item {number}", conversation=conversation, max_output_tokens=5)
        assert answer.status == 200, answer.body

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(append, servers[number % 2], number)
    listed = (await get(servers[1], f"/v1/responses/{previous}/input_items?limit=100&order=asc")).json["data"]
    texts = [item["content"][0]["text"] for item in listed if item["role"] == "user"]
    assert texts == [f"turn {turn}" for turn in range(TURNS)]
    items = (await get(servers[0], f"/v1/conversations/{conversation}/items?limit=100&order=asc")).json["data"]
    said = [item["content"][0]["text"] for item in items if item["role"] == "user"]
    assert sorted(said) == [f"item {number}" for number in range(8)]
    assert [item["role"] for item in items] == ["user", "assistant"] * 8


async def post_to(server: Daemon, path: str, body: dict[str, object]) -> dict[str, str]:
    async with await Client.to(server) as client:
        await client.request("POST", path, json.dumps(body).encode())
        made: dict[str, str] = (await client.answer()).json
        return made
