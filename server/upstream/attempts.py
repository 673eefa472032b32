"""Attempts to answer one job: another upstream is asked if one fails before its first delta."""

import logging
from collections.abc import Sequence
from contextlib import suppress

import trio

from server.protocol.errors import ApiError
from server.stream import UpstreamTrace
from server.upstream.chat_job import Answered, AttemptsFailed, Begun, ChatJob, ChatOutput, Deltas, FirstDelta
from server.upstream.chat_reader import ChatReader
from server.upstream.replicas import Replica, choose
from server.upstream.slots import Slots
from server.upstream.transport import OutputMismatch, UpstreamFault, faults

CHAT = "/chat/completions"
EVENT_STREAM = "text/event-stream"
MAX_ATTEMPTS = 3
MAX_WAIT_SECONDS = 10.0
"""Longest wait before another attempt. A longer `Retry-After` goes to the client."""

log = logging.getLogger("responsed.upstream")


class Attempts:
    """The attempts to answer one job."""

    def __init__(
        self, replicas: Sequence[Replica], slots: Slots, job: ChatJob, send: trio.MemorySendChannel[ChatOutput]
    ) -> None:
        self._replicas = replicas
        self._slots = slots
        self._job = job
        self._send = send
        self._scope = trio.CancelScope()
        self._complete = False
        self._streamed = False
        self._attempts = 0

    def leave(self) -> None:
        """End the job, unless only the connection remains to be recycled."""
        if not self._complete:
            self._scope.cancel()

    async def run(self) -> None:
        with self._scope, self._send:
            try:
                if self._job.max_tokens:
                    async with self._slots.slot(self._job.lane):
                        await self._answer()
                else:  # a prompt to evaluate in advance
                    await self._send.send(Answered(None))
            except trio.BrokenResourceError:
                pass  # the client has left
            except ApiError as error:
                await self._fail(error)
            except UpstreamFault as fault:
                await self._fail(fault.error)
            except Exception:
                log.exception("a request to an upstream failed")
                await self._fail(ApiError("Internal error; see the server log."))

    async def _fail(self, error: ApiError) -> None:
        with suppress(trio.BrokenResourceError):  # the client has left
            await self._send.send(AttemptsFailed(error))

    async def _answer(self) -> None:
        tried: list[Replica] = []
        while True:
            replica = choose(self._replicas, self._job.affinity, tried)
            tried.append(replica)
            self._attempts += 1
            try:
                await self._ask(replica)
                return
            except UpstreamFault as fault:
                replica.failed(fault.kind, fault.unhealthy)
                log.warning("attempt %d: %s", len(tried), fault)
                wait = fault.wait if len(set(tried)) == len(self._replicas) else 0.0
                if self._streamed or not fault.retries or len(tried) >= MAX_ATTEMPTS or wait > MAX_WAIT_SECONDS:
                    raise
                await trio.sleep(wait)
            except OutputMismatch as error:
                replica.failed(error.code or "", False)
                log.warning("attempt %d: %s", len(tried), error.message)
                if self._streamed or len(tried) >= 2:
                    raise

    async def _begin(self, replica: Replica, seconds: float) -> None:
        self._streamed = True
        replica.first_delta.record(seconds)
        await self._send.send(FirstDelta(UpstreamTrace(replica.url, seconds, self._attempts)))

    async def _ask(self, replica: Replica) -> None:
        """Ask one upstream. Raises UpstreamFault, OutputMismatch, trio.BrokenResourceError."""
        job, began = self._job, trio.current_time()
        reader = ChatReader(replica.url, job.calls, job.parallel, job.checks, job.max_tokens)
        replica.running += 1
        try:
            async with replica.client.request("POST", replica.client.address.path + CHAT, job.body) as answer:
                if answer.content_type != EVENT_STREAM:
                    raise faults.garbage(replica.url, f"its answer is {answer.content_type!r} instead of a stream")
                await self._send.send(Begun())
                counted = 0
                while not reader.done:
                    data = await answer.data()
                    inputs = reader.feed(data) if data else reader.finish()
                    if inputs and not self._streamed:
                        await self._begin(replica, trio.current_time() - began)
                    if inputs or reader.deltas > counted:
                        counted = reader.deltas
                        await self._send.send(Deltas(tuple(inputs), reader.deltas, reader.reasoning_deltas))
                replica.healthy = True
                replica.answers += 1
                self._complete = True
                await self._send.send(Answered(reader.usage, reader.incomplete, reader.stop))
                if not reader.ended_early:
                    await answer.drain()
        finally:
            replica.running -= 1
