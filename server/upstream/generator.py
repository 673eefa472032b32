"""Generator over upstream servers: attempts, retries before the first delta, health checks."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import trio

from engine.job import Lane
from engine.runtime import EngineStopped
from engine.scheduler import Counters, EngineStats
from server.generation import GeneratingServer
from server.protocol.errors import ApiError
from server.stream import UpstreamTrace
from server.upstream.chat_job import Answered, AttemptsFailed, Begun, ChatJob, ChatOutput, Deltas, FirstDelta
from server.upstream.chat_reader import ChatReader
from server.upstream.replicas import Replica, choose
from server.upstream.slots import Slots
from server.upstream.transport import OutputMismatch, UpstreamFault, faults

CHAT = "/chat/completions"
MODELS = "/models"
EVENT_STREAM = "text/event-stream"
OUTPUTS = 256
"""Outputs that may wait for the generation."""
MAX_ATTEMPTS = 3
MAX_WAIT_SECONDS = 10.0
"""Longest wait before another attempt. A longer `Retry-After` goes to the client."""
UNHEALTHY_SECONDS = 1.0
"""Seconds between two checks of an upstream that failed."""
HEALTHY_SECONDS = 10.0
CHECK_SECONDS = 5.0
"""Seconds for the answer to a check."""

log = logging.getLogger("responsed.upstream")


class UpstreamGenerator:
    """Jobs for upstream servers. `run` hosts their tasks; all other callers use `generate`."""

    def __init__(self, replicas: Sequence[Replica], n_slots: int) -> None:
        self.replicas = replicas
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
    def generate(self, job: ChatJob) -> Iterator[trio.MemoryReceiveChannel[ChatOutput]]:
        """Return a channel of the outputs of `job`; the last one is `Answered` or `AttemptsFailed`.

        Leaving the block before that closes the connection to the upstream. Raises EngineStopped.
        """
        if self._nursery is None:
            raise EngineStopped("the server is shutting down")
        send, receive = trio.open_memory_channel[ChatOutput](OUTPUTS)
        attempt = _Attempts(self.replicas, self._slots, job, send)
        self._nursery.start_soon(attempt.run)
        try:
            with receive:
                yield receive
        finally:
            attempt.leave()

    async def _watch(self, replica: Replica) -> None:
        """Check an upstream from time to time, so that requests avoid one that does not answer."""
        while True:
            await trio.sleep(HEALTHY_SECONDS if replica.healthy else UNHEALTHY_SECONDS)
            if replica.healthy and replica.running:
                continue  # its answers show its health
            healthy = await answers(replica)
            if healthy != replica.healthy:
                log.warning("upstream %s %s", replica.url, "works again" if healthy else "does not answer")
            replica.healthy = healthy


async def answers(replica: Replica) -> bool:
    """Return whether an upstream answers a request for its models."""
    try:
        with trio.move_on_after(CHECK_SECONDS):
            async with replica.client.request("GET", replica.client.address.path + MODELS) as answer:
                await answer.drain()
            return True
    except UpstreamFault as fault:
        return fault.kind in ("http_404", "http_405")  # it has no such list, and answers
    return False


class _Attempts:
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
