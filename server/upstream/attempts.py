"""Attempts to answer one job: another upstream is asked if one fails before its first delta."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio
from msgspec import Struct

from server.postprocessing import UpstreamTrace
from server.protocol.errors import ApiError
from server.upstream.replicas import Replica, choose
from server.upstream.slots import Slots
from server.upstream.transport import (
    Ask,
    AttemptBegun,
    AttemptsFailed,
    FirstDelta,
    OutputMismatch,
    UpstreamFault,
    UpstreamJob,
    faults,
)

MAX_ATTEMPTS = 3
MAX_MISMATCHES = 2
MAX_WAIT_SECONDS = 10.0
"""Longest wait before another attempt. A longer `Retry-After` goes to the client."""

log = logging.getLogger("responsed.upstream")


class LastFault(Struct, frozen=True):
    """The last fault of an upstream, and the time from which it may be asked again."""

    fault: UpstreamFault
    until: float


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
        self._last_faults: dict[Replica, LastFault] = {}
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
        self._tried[-1].outputs += 1
        await self._put(output)

    async def begin(self) -> None:
        if self._streamed:
            return
        self._streamed = True
        replica, seconds = self._tried[-1], trio.current_time() - self._began
        replica.first_delta.record(seconds)
        await self._put(FirstDelta(UpstreamTrace(replica.url, seconds, len(self._tried))))

    def complete(self) -> None:
        replica = self._tried[-1]
        replica.healthy = True
        replica.answers += 1
        self._complete = True

    async def _put(self, message: Any) -> None:
        """Send a message without a turn of the event loop, which would cost 50 us, unless the reader is behind."""
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            await self._send.send(message)

    async def _fail(self, error: ApiError) -> None:
        with suppress(trio.BrokenResourceError):  # the client has left
            await self._send.send(AttemptsFailed(error))

    async def _answer(self) -> None:
        """Ask one upstream after the other. Raises UpstreamFault, OutputMismatch, trio.BrokenResourceError."""
        while True:
            replica = await self._next()
            try:
                await self._attempt(replica)
                return
            except UpstreamFault as fault:
                self._note(replica, fault.kind, str(fault), fault.unhealthy)
                self._last_faults[replica] = LastFault(fault, trio.current_time() + fault.wait)
                if not fault.retries or not self._may_repeat(MAX_ATTEMPTS):
                    raise
            except OutputMismatch as error:
                self._note(replica, error.code or "", error.message)
                if not self._may_repeat(MAX_MISMATCHES):
                    raise

    async def _next(self) -> Replica:
        """Return the upstream for the next attempt, once it may be asked.

        Raises its last fault if it asks to wait for too long, and a fault if no upstream may be asked at all.
        """
        if all(each.barred for each in self._replicas):
            raise faults.none_usable(each.error for each in self._replicas)
        replica = choose(self._replicas, self._job.affinity, self._tried)
        if (last := self._last_faults.get(replica)) is not None:
            if last.until - trio.current_time() > MAX_WAIT_SECONDS:
                raise last.fault
            await trio.sleep_until(last.until)
        return replica

    async def _attempt(self, replica: Replica) -> None:
        self._tried.append(replica)
        self._began = trio.current_time()
        replica.running += 1
        try:
            await self._put(AttemptBegun())  # handled while the upstream reads the request
            await self._ask(replica.client, self._job, self)
        finally:
            replica.running -= 1

    def _note(self, replica: Replica, kind: str, message: str, unhealthy: bool = False) -> None:
        log.warning("attempt %d: %s", len(self._tried), message)
        if unhealthy and replica.healthy:
            log.warning("upstream %s does not answer", replica.url)  # `_watch` logs when it does again
        replica.failed(kind, unhealthy)

    def _may_repeat(self, most: int) -> bool:
        return not self._streamed and len(self._tried) < most
