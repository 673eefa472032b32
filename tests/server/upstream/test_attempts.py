"""Attempts: which upstream is asked when, and the fault that remains."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio
from msgspec import Struct

from engine.job import Lane
from server.upstream.attempts import Attempts
from server.upstream.replicas import Replica
from server.upstream.slots import Slots
from server.upstream.transport import Address, Attempt, AttemptsFailed, UpstreamClient, UpstreamFault, faults
from tests.server.upstream.scripted_upstream import TIMEOUTS

URLS = ("http://a", "http://b")


class AffineJob(Struct, frozen=True):
    lane: Lane = Lane.INTERACTIVE
    affinity: str = "c"
    """A conversation of `http://a`."""


def busy(url: str, wait: float) -> UpstreamFault:
    return faults.refused(url, 503, "", wait)


GONE = faults.unreachable("http://b", "refused")


@pytest.mark.parametrize(
    ("answers", "barred", "expected", "error"),
    [
        ({"a": [busy("a", 3), None]}, "b", [("a", 0), ("a", 3)], None),
        ({"a": [busy("a", 3), None], "b": [GONE]}, "", [("a", 0), ("b", 0), ("a", 3)], None),
        ({"a": [busy("a", 30)], "b": [GONE]}, "", [("a", 0), ("b", 0)], "The upstream a is busy (status 503)"),
        ({"a": [busy("a", 30)], "b": [None]}, "", [("a", 0), ("b", 0)], None),
        ({"a": [busy("a", 1)] * 3}, "b", [("a", 0), ("a", 1), ("a", 2)], "The upstream a is busy (status 503)"),
        ({}, "ab", [], "No upstream can be used now. other model. other model."),
    ],
)
async def test_upstream_is_asked_again_after_the_wait_that_it_asks_for(
    answers: Mapping[str, Sequence[UpstreamFault | None]],
    barred: str,
    expected: list[tuple[str, float]],
    error: str | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicas = [Replica(UpstreamClient(Address.of(url), TIMEOUTS)) for url in URLS]
    for replica in replicas:
        replica.barred, replica.error = replica.url[-1] in barred, "other model"
    script = {name: list(each) for name, each in answers.items()}
    asked: list[tuple[str, float]] = []

    async def ask(client: UpstreamClient, job: AffineJob, attempt: Attempt) -> None:
        name = client.address.url[-1]
        asked.append((name, trio.current_time()))
        if (fault := script[name].pop(0)) is not None:
            raise fault

    send, receive = trio.open_memory_channel[Any](9)
    began = trio.current_time()
    await Attempts(replicas, Slots(1), AffineJob(), ask, send).run()
    ends = [each.error.message async for each in receive if isinstance(each, AttemptsFailed)]
    assert [(name, round(time - began, 6)) for name, time in asked] == expected
    assert ends == ([] if error is None else [error])
