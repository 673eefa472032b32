"""Attempts to answer one job: another upstream is asked if one fails before its first delta."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio

from server.postprocessing import UpstreamTrace
from server.protocol.errors import ApiError
from server.upstream.replicas import Replica, choose
from server.upstream.slots import Slots
from server.upstream.transport import (
    Ask,
    AttemptsFailed,
    FirstDelta,
    OutputMismatch,
    UpstreamFault,
    UpstreamJob,
    faults,
)

MAX_ATTEMPTS = 3
MAX_WAIT_SECONDS = 10.0
"""Longest wait before another attempt. A longer `Retry-After` goes to the client."""

log = logging.getLogger("responsed.upstream")


class Attempts:
    """The attempts to answer one job; each is an `Attempt` to the function that asks."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        slots: Slots,
        job: UpstreamJob,
        ask: Ask,
        send: trio.MemorySendChannel[Any],
    ) -> None:
        self._replicas = replicas
        self._slots = slots
        self._job = job
        self._ask = ask
        self._send = send
        self._scope = trio.CancelScope()
        self._complete = False
        self._streamed = False
        self._tried: list[Replica] = []
        self._began = 0.0

    def leave(self) -> None:
        """End the job, unless only the connection remains to be recycled."""
        if not self._complete:
            self._scope.cancel()

    async def run(self) -> None:
        with self._scope, self._send:
            try:
                async with self._slots.slot(self._job.lane):
                    await self._answer()
            except trio.BrokenResourceError:
                pass  # the client has left
            except ApiError as error:
                await self._fail(error)
            except UpstreamFault as fault:
                await self._fail(fault.error)
            except Exception:
                log.exception("a request to an upstream failed")
                await self._fail(ApiError("Internal error; see the server log."))

    async def send(self, output: Any) -> None:
        await self._send.send(output)

    async def begin(self) -> None:
        if self._streamed:
            return
        self._streamed = True
        replica, seconds = self._tried[-1], trio.current_time() - self._began
        replica.first_delta.record(seconds)
        await self._send.send(FirstDelta(UpstreamTrace(replica.url, seconds, len(self._tried))))

    def complete(self) -> None:
        replica = self._tried[-1]
        replica.healthy = True
        replica.answers += 1
        self._complete = True

    async def _fail(self, error: ApiError) -> None:
        with suppress(trio.BrokenResourceError):  # the client has left
            await self._send.send(AttemptsFailed(error))

    def _may_retry(self, fault: UpstreamFault, wait: float) -> bool:
        """True if another attempt after `wait` seconds may succeed in time."""
        return fault.retries and len(self._tried) < MAX_ATTEMPTS and wait <= MAX_WAIT_SECONDS

    async def _answer(self) -> None:
        tried = self._tried
        while True:
            if all(each.barred for each in self._replicas):
                raise faults.none_usable(each.error for each in self._replicas)
            replica = choose(self._replicas, self._job.affinity, tried)
            tried.append(replica)
            self._began = trio.current_time()
            replica.running += 1
            try:
                await self._ask(replica.client, self._job, self)
                return
            except UpstreamFault as fault:
                replica.failed(fault.kind, fault.unhealthy)
                log.warning("attempt %d: %s", len(tried), fault)
                wait = fault.wait if len(set(tried)) == len(self._replicas) else 0.0
                if self._streamed or not self._may_retry(fault, wait):
                    raise
            except OutputMismatch as error:
                replica.failed(error.code or "", False)
                log.warning("attempt %d: %s", len(tried), error.message)
                if self._streamed or len(tried) >= 2:
                    raise
                wait = 0.0
            finally:
                replica.running -= 1
            await trio.sleep(wait)
