"""THE thread. It alone touches the model; trio talks to it through an inbox and hears from it through channels."""

import itertools
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeAlias

import trio
from msgspec import Struct

from engine.model import Chunk, Model, ModelError
from engine.pieces import Finish, Job, Piece, Reason
from engine.sampler import Sampler
from engine.scheduler import Key, Scheduler


class EngineStopped(Exception):
    """The inference thread has ended; nothing can be generated."""


class Submit(Struct, frozen=True):
    key: Key
    job: Job


class Cancel(Struct, frozen=True):
    key: Key


Letter: TypeAlias = Submit | Cancel | None
"""What the inbox holds; None ends the thread."""


class Engine:
    """Generations over one model. `run` is the thread's task; `generate` is what everybody else calls."""

    def __init__(self, model: Model, end_tokens: Collection[int]) -> None:
        self._model = model
        self._scheduler = Scheduler(model.info, end_tokens)
        self._samplers: dict[Key, Sampler] = {}
        self._inbox: SimpleQueue[Letter] = SimpleQueue()
        self._channels: dict[Key, trio.MemorySendChannel[Piece]] = {}
        self._keys = itertools.count()
        self._running = False

    @property
    def running(self) -> bool:
        """Whether `generate` can work."""
        return self._running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host the thread until cancelled. An exception in the thread comes out here."""
        token = trio.lowlevel.current_trio_token()
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._host, token)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._inbox.put(None)
        finally:
            self._running = False
            self._deliver([(key, Finish(Reason.FAILED, "the server is shutting down")) for key in self._channels])

    @contextmanager
    def generate(self, job: Job) -> Iterator[trio.MemoryReceiveChannel[Piece]]:
        """The pieces of `job`, as they come; the last one is a `Finish`. Leaving the block stops the generation.

        Raises EngineStopped.
        """
        if not self._running:
            raise EngineStopped("the engine has stopped")
        key = next(self._keys)
        # Unbounded, since the thread never waits for a client; `job.max_tokens` bounds it.
        send, receive = trio.open_memory_channel[Piece](math.inf)
        self._channels[key] = send
        self._inbox.put(Submit(key, job))
        try:
            with receive:
                yield receive
        finally:
            if self._channels.pop(key, None) is not None:
                self._inbox.put(Cancel(key))

    async def _host(self, token: trio.lowlevel.TrioToken) -> None:
        await trio.to_thread.run_sync(self._work, token, thread_name="inference", limiter=trio.CapacityLimiter(1))

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        while self._read_inbox():
            pieces = self._step(self._scheduler.plan())
            if pieces:
                token.run_sync_soon(self._deliver, pieces)
                self._forget(pieces)

    def _read_inbox(self) -> bool:
        """Take in what has come; wait for it only when there is nothing else to do. False: the thread is to end."""
        while not self._inbox.empty() or self._scheduler.idle:
            letter = self._inbox.get()
            match letter:
                case Submit(key, job):
                    self._samplers[key] = Sampler(job.sampling)
                    self._scheduler.add(key, job)
                case Cancel(key):
                    self._samplers.pop(key, None)
                    self._scheduler.cancel(key)
                case None:
                    return False
        return True

    def _step(self, plan: list[Chunk]) -> list[tuple[Key, Piece]]:
        try:
            self._model.decode(plan)
        except ModelError as error:
            return self._scheduler.fail(plan, str(error))
        return self._scheduler.absorb(plan, {chunk.slot: self._sample(chunk) for chunk in plan if chunk.logits})

    def _sample(self, chunk: Chunk) -> int:
        return self._samplers[self._scheduler.key(chunk.slot)].pick(self._model.logits(chunk.slot))

    def _forget(self, pieces: list[tuple[Key, Piece]]) -> None:
        for key, piece in pieces:
            if isinstance(piece, Finish):
                del self._samplers[key]

    def _deliver(self, pieces: list[tuple[Key, Piece]]) -> None:
        """On the trio side. Nothing here may raise: an exception in a run_sync_soon callback ends the server."""
        for key, piece in pieces:
            ended = isinstance(piece, Finish)
            channel = self._channels.pop(key, None) if ended else self._channels.get(key)
            if channel is None:
                continue  # the client has left; its Cancel is on the way
            try:
                channel.send_nowait(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                continue
            if ended:
                channel.close()
