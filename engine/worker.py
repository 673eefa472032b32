"""THE thread. It alone touches the model; trio talks to it through an inbox and hears from it through channels."""

import itertools
import logging
import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TypeAlias

import trio
from msgspec import Struct

from engine.ahead import Ahead
from engine.constraint import Constraint, GrammarError
from engine.model import Chunk, Model, ModelError
from engine.pieces import Finish, Job, Piece, Reason, Token
from engine.sampler import Sampler
from engine.scheduler import Plan, Scheduler
from engine.slots import Key
from engine.snapshots import Snapshot, Snapshots

QUIET_SECONDS = 30.0
"""How long nobody must have asked for anything before the KV cache is written down."""
STUCK_SECONDS = 60.0
"""No step takes so long: they are a tenth of a second, and a few where a machine is overloaded."""

log = logging.getLogger("responsed.engine")


class EngineStopped(Exception):
    """The inference thread has ended; nothing can be generated."""


class Submit(Struct, frozen=True):
    key: Key
    job: Job


class Cancel(Struct, frozen=True):
    key: Key


class Restore(Struct, frozen=True):
    pass


Letter: TypeAlias = Submit | Cancel | Restore | None
"""What the inbox holds; None ends the thread."""


class Engine:
    """Generations over one model. `run` is the thread's task; `generate` is what everybody else calls."""

    def __init__(
        self,
        model: Model,
        end_tokens: Collection[int],
        max_step_seconds: float = 0.0,
        snapshots: Snapshots | None = None,
    ) -> None:
        """`max_step_seconds`: see `engine.pace`. `snapshots`: where the KV cache is kept over a restart."""
        self._model = model
        self._scheduler = Scheduler(model.info, end_tokens, max_step_seconds)
        self._samplers: dict[Key, Sampler] = {}
        self._constraints: dict[Key, Constraint] = {}
        self._ahead = Ahead()
        self._inbox: SimpleQueue[Letter] = SimpleQueue()
        self._channels: dict[Key, trio.MemorySendChannel[Piece]] = {}
        self._keys = itertools.count()
        self._snapshots = snapshots if model.info.saves else None
        self._unsaved = False
        self._nursery: trio.Nursery | None = None
        self._running = False
        self._step_began: float | None = None
        self._farewell = "the server is shutting down"

    @property
    def running(self) -> bool:
        """Whether `generate` can work."""
        return self._running

    @property
    def stuck(self) -> bool:
        """Whether the model doesn't come back from a step: nothing but a restart helps then."""
        began = self._step_began
        return began is not None and time.perf_counter() - began > STUCK_SECONDS

    @property
    def full(self) -> bool:
        """Whether another job would have to wait for a slot."""
        return len(self._channels) >= self._model.info.n_slots

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host the thread until cancelled. An exception in the thread comes out here."""
        token = trio.lowlevel.current_trio_token()
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._host, token)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._inbox.put(None)
                    self._model.interrupt()
        finally:
            self._nursery = None
            self._running = False
            self._deliver([(key, Finish(Reason.FAILED, self._farewell)) for key in self._channels])

    def restore(self) -> None:
        """Fill the slots with what the last run held. Before the first job: it would have to make room."""
        self._inbox.put(Restore())

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
                if not self._channels:
                    self._model.interrupt()  # what is being evaluated is for nobody

    async def _host(self, token: trio.lowlevel.TrioToken) -> None:
        threads = trio.CapacityLimiter(2)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    partial(trio.to_thread.run_sync, self._ahead.work, thread_name="ahead", limiter=threads)
                )
                await trio.to_thread.run_sync(self._work, token, thread_name="inference", limiter=threads)
        except Exception:
            self._farewell = "the inference thread failed; the server's log says why"
            raise

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        try:
            self._loop(token)
        finally:
            self._ahead.close()

    def _loop(self, token: trio.lowlevel.TrioToken) -> None:
        while self._read_inbox(token):
            self._unsaved = self._snapshots is not None
            pieces = self._step(self._scheduler.plan())
            if pieces:
                token.run_sync_soon(self._deliver, pieces)
                self._forget(pieces)
        if self._snapshots is not None and (snapshots := self._unsaved_slots()):
            self._snapshots.write(snapshots)

    def _read_inbox(self, token: trio.lowlevel.TrioToken) -> bool:
        """Take in what has come; wait for it only when there is nothing else to do. False: the thread is to end."""
        while not self._inbox.empty() or self._scheduler.idle:
            try:
                letter = self._inbox.get(timeout=QUIET_SECONDS if self._unsaved else None)
            except Empty:
                # Copied here, in milliseconds; written elsewhere, since a disk may take seconds.
                token.run_sync_soon(self._keep, self._unsaved_slots())
                continue
            match letter:
                case Submit(key, job):
                    self._samplers[key] = Sampler(job.sampling, job.prompt, job.top_logprobs)
                    if job.grammar is not None:
                        self._constraints[key] = job.grammar.start()
                    self._scheduler.add(key, job)
                case Cancel(key):
                    self._samplers.pop(key, None)
                    self._constraints.pop(key, None)
                    self._scheduler.cancel(key)
                case Restore():
                    self._restore()
                case None:
                    return False
        return True

    def _step(self, plan: Plan) -> list[tuple[Key, Piece]]:
        self._step_began = began = time.perf_counter()
        try:
            for share in plan.shares:
                self._model.share(share.source, share.target, share.n)
            with self._ahead.preparing(self._constraining(plan)):
                self._model.decode(plan.chunks)
        except ModelError as error:
            return self._scheduler.fail(plan, str(error))
        finally:
            self._step_began = None
        seconds = time.perf_counter() - began
        return self._absorb(plan, seconds)

    def _absorb(self, plan: Plan, seconds: float) -> list[tuple[Key, Piece]]:
        """Sample what was decoded. Where a grammar can't be held, that job ends, and the others go on."""
        sampled: dict[int, list[Token]] = {}
        pieces: list[tuple[Key, Piece]] = []
        chunks: list[Chunk] = []
        for chunk in plan.chunks:
            try:
                if chunk.logits:
                    sampled[chunk.slot] = self._sample(chunk)
            except GrammarError as error:
                pieces += self._scheduler.fail(Plan(chunks=(chunk,)), str(error), Reason.UNHELD)
            else:
                chunks.append(chunk)
        return pieces + (self._scheduler.absorb(Plan(chunks=tuple(chunks)), sampled, seconds) if chunks else [])

    def _constraining(self, plan: Plan) -> list[Constraint]:
        """The constraints of those who get a token of this step."""
        keys = [self._scheduler.key(chunk.slot) for chunk in plan.chunks if chunk.logits]
        return [self._constraints[key] for key in keys if key in self._constraints]

    def _sample(self, chunk: Chunk) -> list[Token]:
        """A token for each row of logits, up to the first that isn't what was guessed to stand there.

        Raises GrammarError.
        """
        key = self._scheduler.key(chunk.slot)
        sampler, constraint = self._samplers[key], self._constraints.get(key)
        tokens: list[Token] = []
        for row, guess in enumerate((*chunk.tokens[len(chunk.tokens) - chunk.logits + 1 :], None)):
            logits = self._model.logits(chunk.slot, row)
            untouched = sampler.untouched(logits)
            if constraint is not None:
                constraint.apply(logits)
            token = sampler.pick(logits)
            if constraint is not None:
                constraint.advance(token)
            tokens.append(Token(token, sampler.likelihood(untouched, token)))
            if token != guess:
                break
        return tokens

    def _forget(self, pieces: list[tuple[Key, Piece]]) -> None:
        for key, piece in pieces:
            if isinstance(piece, Finish):
                del self._samplers[key]
                self._constraints.pop(key, None)

    def _restore(self) -> None:
        """Fill the slots from the last run's, the most useful last: the scheduler gives away the others first."""
        if self._snapshots is None:
            return
        found = list(islice(self._snapshots.read(), self._model.info.n_slots))
        for slot, snapshot in enumerate(reversed(found)):
            try:
                self._model.restore(slot, snapshot.state, len(snapshot.tokens))
            except ModelError as error:
                log.warning("a saved slot is left out: %s", error)
            else:
                self._scheduler.hold(slot, snapshot.tokens)
        if found:
            log.info("%d slots are warm from the last run", len(found))

    def _unsaved_slots(self) -> list[Snapshot]:
        """What has been held since the last time this was asked; nothing if nothing was evaluated."""
        if self._snapshots is None or not self._unsaved:
            return []
        self._unsaved = False
        held = self._scheduler.held()
        return self._snapshots.choose(Snapshot(tokens, self._model.save(slot)) for slot, tokens in held)

    def _keep(self, snapshots: list[Snapshot]) -> None:
        """On the trio side, as `_deliver`."""
        if self._snapshots is not None and snapshots and self._nursery is not None:
            self._nursery.start_soon(trio.to_thread.run_sync, self._snapshots.write, snapshots)

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
