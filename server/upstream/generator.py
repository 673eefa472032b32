"""Generator over upstream servers: it runs the attempts of each job, and checks the upstreams' health."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from msgspec import Struct

from engine.job import Lane
from engine.runtime import EngineStopped
from engine.scheduler import Counters, EngineStats
from server.generation import GeneratingServer
from server.upstream.attempts import Attempts
from server.upstream.replicas import Replica
from server.upstream.slots import Slots
from server.upstream.transport import Ask, UpstreamJob

OUTPUTS = 256
"""Outputs that may wait for the generation."""

log = logging.getLogger("responsed.upstream")


class CheckIntervals(Struct, frozen=True):
    """Seconds between two checks of an upstream."""

    healthy: float = 10.0
    failed: float = 1.0


INTERVALS = CheckIntervals()


class UpstreamGenerator:
    """Jobs for upstream servers. `run` hosts their tasks; all other callers use `generate`."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        n_slots: int,
        ask: Ask,
        check: Callable[[Replica], Awaitable[bool]],
        intervals: CheckIntervals = INTERVALS,
    ) -> None:
        """`ask`: the form of the API in which they are asked. `check` returns whether an upstream answers."""
        self.replicas = replicas
        self._ask = ask
        self._check = check
        self._intervals = intervals
        self._slots = Slots(n_slots)
        self._nursery: trio.Nursery | None = None

    @property
    def running(self) -> bool:
        return self._nursery is not None

    @property
    def stuck(self) -> bool:
        """Return False: no restart of this server helps an upstream."""
        return False

    def stats(self) -> EngineStats:
        return Counters().snapshot()

    def servers(self) -> list[GeneratingServer]:
        return [each.state() for each in self.replicas]

    def full(self, lane: Lane = Lane.INTERACTIVE) -> bool:
        return self._slots.full

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for replica in self.replicas:
                    nursery.start_soon(self._watch, replica)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                for replica in self.replicas:
                    await replica.client.close_idle()

    async def warm_up(self) -> None:
        """Do nothing: the upstreams were tried before the start."""

    async def restore(self) -> None:
        """Do nothing: the upstreams have their own caches."""

    def limit_steps(self, seconds: float) -> None:
        """Do nothing: the upstreams plan their own steps."""

    async def drop_cached(self, group: str | None = None) -> None:
        """Do nothing: no API deletes prompts from an upstream's cache."""

    @contextmanager
    def generate(self, job: UpstreamJob) -> Iterator[trio.MemoryReceiveChannel[Any]]:
        """Return a channel of the outputs of `job`, which end with its last one or `AttemptsFailed`.

        Leaving the block before that closes the connection to the upstream. Raises EngineStopped.
        """
        if self._nursery is None:
            raise EngineStopped("the server is shutting down")
        send, receive = trio.open_memory_channel[Any](OUTPUTS)
        attempts = Attempts(self.replicas, self._slots, job, self._ask, send)
        self._nursery.start_soon(attempts.run)
        try:
            with receive:
                yield receive
        finally:
            attempts.leave()

    async def _watch(self, replica: Replica) -> None:
        """Check an upstream from time to time, so that requests avoid one that does not answer."""
        seen = 0
        while True:
            intervals = self._intervals
            await trio.sleep(intervals.healthy if replica.healthy or replica.barred else intervals.failed)
            if replica.healthy and replica.outputs != seen:
                seen = replica.outputs
                continue  # its answers show its health
            healthy = await self._is_healthy(replica)
            if healthy != replica.healthy:
                log.warning("upstream %s %s", replica.url, "answers" if healthy else "does not answer")
            replica.healthy = healthy

    async def _is_healthy(self, replica: Replica) -> bool:
        """Check an upstream. An error of the check itself, which its answer has caused, ends no request to others."""
        try:
            return await self._check(replica)
        except Exception:
            log.exception("the check of upstream %s failed", replica.url)
            return False
