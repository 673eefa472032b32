"""Parts of the upstream side: addresses, event streams, replicas and slots."""

import itertools

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.job import Lane
from server.upstream.replicas import Replica, choose
from server.upstream.slots import Slots
from server.upstream.transport.address import Address
from server.upstream.transport.client import UpstreamClient
from server.upstream.transport.event_stream import MAX_EVENT_BYTES, EventData, EventTooLong
from tests.server.upstream.scripted_upstream import TIMEOUTS


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a:8000", ("a", 8000, False, "/v1", "", "a:8000")),
        ("http://a/v1/", ("a", 80, False, "/v1", "", "a")),
        ("https://a.example", ("a.example", 443, True, "/v1", "", "a.example")),
        ("https://a:444/openai/v1", ("a", 444, True, "/openai/v1", "/openai", "a:444")),
        ("http://[::1]:9", ("::1", 9, False, "/v1", "", "[::1]:9")),
        ("http://a/api", ("a", 80, False, "/api", "/api", "a")),
    ],
)
def test_address_has_the_parts_of_a_url(url: str, expected: tuple[object, ...]) -> None:
    found = Address.of(url)
    assert (found.host, found.port, found.tls, found.path, found.root, found.authority) == expected


STREAM = b': ping\n\ndata: {"a":1}\n\ndata:two\r\ndata: lines\r\n\r\nevent: x\nid: 7\ndata: [DONE]\n\ndata: cut'


@given(st.lists(st.integers(0, len(STREAM)), max_size=9))
def test_event_data_does_not_depend_on_the_cuts(cuts: list[int]) -> None:
    events, places = EventData(), [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[start:end] for start, end in itertools.pairwise(places)]
    assert [data for part in parts for data in events.feed(part)] == [b'{"a":1}', b"two\nlines", b"[DONE]"]


def test_event_without_end_is_too_long() -> None:
    events = EventData()
    assert list(events.feed(b"x" * MAX_EVENT_BYTES)) == []
    with pytest.raises(EventTooLong):
        list(events.feed(b"x"))


def replicas(count: int) -> list[Replica]:
    return [Replica(UpstreamClient(Address.of(f"http://host{n}:80"), TIMEOUTS)) for n in range(count)]


@given(st.integers(2, 6), st.text(), st.data())
def test_conversation_moves_only_if_its_replica_fails(count: int, affinity: str, data: st.DataObject) -> None:
    all_ = replicas(count)
    first = choose(all_, affinity)
    assert choose(list(reversed(all_)), affinity) is first
    other = data.draw(st.sampled_from([each for each in all_ if each is not first]))
    other.healthy = False
    assert choose(all_, affinity) is first
    first.healthy = False
    second = choose(all_, affinity)
    assert second.healthy or count == 2
    first.healthy = True
    assert choose(all_, affinity) is first
    assert choose(all_, affinity, [first]) is not first


def test_conversations_spread_over_the_replicas() -> None:
    all_ = replicas(3)
    counts = [sum(choose(all_, f"resp_{n}") is each for n in range(300)) for each in all_]
    assert min(counts) > 60


async def test_slots_go_to_interactive_jobs_first_in_order_of_arrival() -> None:
    slots, order = Slots(1), list[str]()

    async def job(name: str, lane: Lane) -> None:
        async with slots.slot(lane):
            order.append(name)

    async with trio.open_nursery() as nursery, slots.slot(Lane.BATCH):
        for name in ("b1", "i1", "b2", "i2"):
            lane = Lane.BATCH if name[0] == "b" else Lane.INTERACTIVE
            nursery.start_soon(job, name, lane)
            await trio.testing.wait_all_tasks_blocked()
        assert slots.full
    assert order == ["i1", "i2", "b1", "b2"]
    assert not slots.full


async def test_cancelled_job_leaves_its_place_to_others() -> None:
    slots = Slots(1)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def leaver() -> None:
            with scope:
                async with slots.slot(Lane.INTERACTIVE):
                    raise AssertionError("it has left")

        async with slots.slot(Lane.INTERACTIVE):
            nursery.start_soon(leaver)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert not slots.full
