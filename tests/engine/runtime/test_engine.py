"""`engine.runtime.engine` over a scripted model: the real thread and the real channels."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from queue import SimpleQueue
from typing import Self

import msgspec
import numpy as np
import pytest
import trio

from engine.backends.scripted import ASSISTANT, END, USER, ScriptedModel
from engine.job import (
    EngineOutput,
    Finished,
    FinishReason,
    Job,
    Lane,
    Progress,
    SamplingParams,
    Started,
    StepTimes,
    Token,
)
from engine.model import BatchEntry, FloatArray, ModelError, SavedState
from engine.runtime.commands import Command, Submit
from engine.runtime.engine import Engine, EngineStopped
from engine.runtime.host_cache import HostCache
from engine.runtime.loop import INTERNAL_ERROR, InferenceLoop

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
STOP, LENGTH = Finished(FinishReason.STOP), Finished(FinishReason.LENGTH)
SHUTDOWN = Finished(FinishReason.FAILED, "the server is shutting down")
BROKEN = Finished(FinishReason.FAILED, INTERNAL_ERROR)
PATIENCE = 20.0
"""Seconds after which a test that hangs has failed."""

Pieces = trio.MemoryReceiveChannel[EngineOutput]


def job(message: bytes, max_tokens: int = 100) -> Job:
    return Job((USER, *message, ASSISTANT), max_tokens, GREEDY)


def tokens_of(answer: bytes) -> list[EngineOutput]:
    return [Token(byte) for byte in answer]


class Gate:
    """A reply that waits for a permission before each token, so that a test knows the thread's progress."""

    def __init__(self) -> None:
        self._permits: SimpleQueue[None] = SimpleQueue()

    def __call__(self, message: bytes) -> bytes:
        self._permits.get(timeout=PATIENCE)
        return message * 50

    def allow(self, n: int) -> None:
        for _ in range(n):
            self._permits.put(None)


@asynccontextmanager
async def running(model: ScriptedModel) -> AsyncIterator[Engine]:
    """Run an engine that stops when the block is left, and must then be empty."""
    engine = Engine(model, {END})
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            yield engine
            await answered(engine, job(b"", max_tokens=1))  # so every Cancel before it was read
            nursery.cancel_scope.cancel()
    assert not engine.running
    assert engine._channels == {}
    assert engine._loop.empty


@contextmanager
def generations(engine: Engine, *jobs: Job) -> Iterator[list[Pieces]]:
    """Run all of them at once, in this order."""
    with ExitStack() as stack:
        yield [stack.enter_context(engine.generate(each)) for each in jobs]


async def heard(outputs: Pieces) -> list[EngineOutput]:
    return [output async for output in outputs]


async def answered(engine: Engine, job: Job) -> list[EngineOutput]:
    with engine.generate(job) as outputs:
        return await heard(outputs)


async def received(outputs: Pieces, n: int) -> list[EngineOutput]:
    return [await outputs.receive() for _ in range(n)]


async def test_generate_returns_started_tokens_finished() -> None:
    async with running(ScriptedModel()) as engine:
        assert await answered(engine, job(b"Hello")) == [Started(0), *tokens_of(b"Hello"), STOP]
        assert await answered(engine, job(b"Hello", max_tokens=2)) == [Started(6), *tokens_of(b"He"), LENGTH]
        assert await answered(engine, job(b"")) == [Started(1), STOP]


async def test_generate_beyond_the_slots_answers_all_in_order() -> None:
    model = ScriptedModel(n_slots=2)
    async with running(model) as engine:
        with generations(engine, job(b"aaaa"), job(b"bbbb"), job(b"cc"), job(b"dd")) as four:
            found = [await heard(outputs) for outputs in four]
    assert [outputs[1:] for outputs in found] == [[*tokens_of(text), STOP] for text in (b"aaaa", b"bbbb", b"cc", b"dd")]
    assert all(isinstance(outputs[0], Started) for outputs in found)
    prompts = [
        tokens[-2] for tokens in (entry.tokens for entry in model.decoded) if tokens[1:] and tokens[-1] == ASSISTANT
    ]
    assert bytes(prompts) == b"abcd"


async def test_generate_of_two_jobs_alternates() -> None:
    gate = Gate()
    model = ScriptedModel(gate)
    async with running(model) as engine:
        with generations(engine, job(b"a", 5), job(b"b", 5)) as pair:
            gate.allow(100)
            assert [await heard(outputs) for outputs in pair] == [
                [Started(0), *tokens_of(text * 5), LENGTH] for text in (b"a", b"b")
            ]
        slots = [entry.slot for entry in model.decoded]
    both = slots[slots.index(1) : len(slots) - slots[::-1].index(0)]
    assert both == [1, 0] * (len(both) // 2)
    assert len(both) in (6, 8)  # the thread may have begun with the first before it heard of the second


async def test_generate_that_is_left_stops_within_one_token() -> None:
    gate = Gate()
    model = ScriptedModel(gate, n_slots=1)
    async with running(model) as engine:
        gate.allow(3)
        with engine.generate(job(b"x")) as outputs:
            assert await received(outputs, 4) == [Started(0), *tokens_of(b"xxx")]
        gate.allow(200)
        assert (await answered(engine, job(b"y", max_tokens=2)))[-1] == LENGTH
    first = [entry for entry in model.decoded if entry.position > 0 and entry.tokens in ([ord("x")], [END])]
    assert len(first) in (2, 3)  # what was allowed, and the one that the thread may have been at
    assert [entry.position for entry in first] == [3, 4, 5][: len(first)]


async def test_generate_that_is_left_while_waiting_is_never_evaluated() -> None:
    gate = Gate()
    model = ScriptedModel(gate, n_slots=1)
    async with running(model) as engine:
        with engine.generate(job(b"a", max_tokens=3)) as first, engine.generate(job(b"c", max_tokens=1)) as third:
            with engine.generate(job(b"b")) as second:
                gate.allow(1)
                assert await received(first, 2) == [Started(0), *tokens_of(b"a")]
                with pytest.raises(trio.WouldBlock):
                    second.receive_nowait()
            gate.allow(100)
            assert await heard(first) == [*tokens_of(b"aa"), LENGTH]
            assert await heard(third) == [Started(1), *tokens_of(b"c"), LENGTH]
    assert not any(ord("b") in entry.tokens for entry in model.decoded)


async def test_generate_that_is_left_by_an_error_stops() -> None:
    async with running(ScriptedModel(lambda _: b"x" * 4000, seconds_per_token=0.001)) as engine:
        try:
            with engine.generate(job(b"a", max_tokens=4000)) as outputs:
                await received(outputs, 2)
                raise ZeroDivisionError
        except ZeroDivisionError:
            assert engine._channels == {}
        assert (await answered(engine, job(b"b", max_tokens=1)))[1:] == [*tokens_of(b"x"), LENGTH]


async def test_generate_with_a_client_that_reads_nothing_delays_no_other() -> None:
    async with running(ScriptedModel(n_slots=1)) as engine:
        with engine.generate(job(b"unread")) as unread:
            assert (await answered(engine, job(b"read")))[1:] == [*tokens_of(b"read"), STOP]
            assert await heard(unread) == [Started(0), *tokens_of(b"unread"), STOP]


def picky(message: bytes) -> bytes:
    if message == b"bad":
        raise ModelError("it does not like this")
    return message


async def test_engine_with_a_model_error_ends_only_that_generation() -> None:
    async with running(ScriptedModel(picky, n_slots=2)) as engine:
        with generations(engine, job(b"good"), job(b"bad"), job(b"fine")) as three:
            good, bad, fine = [await heard(outputs) for outputs in three]
        assert good == [Started(0), *tokens_of(b"good"), STOP]
        assert bad == [Finished(FinishReason.FAILED, "it does not like this")]
        assert fine[1:] == [*tokens_of(b"fine"), STOP]
        assert (await answered(engine, job(b"again")))[1:] == [*tokens_of(b"again"), STOP]


async def test_generate_beyond_the_context_fails() -> None:
    async with running(ScriptedModel(n_ctx=8)) as engine:
        message = "position 0 + 9 tokens is outside the slot"
        assert await answered(engine, job(b"1234567")) == [Finished(FinishReason.FAILED, message)]
        assert await answered(engine, job(b"123")) == [Started(0), *tokens_of(b"123"), LENGTH]


async def test_engine_that_stops_fails_open_generations() -> None:
    engine = Engine(ScriptedModel(lambda _: b"x" * 4000, n_slots=2, seconds_per_token=0.001), {END})
    with ExitStack() as stack, trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            three = [stack.enter_context(engine.generate(job(text, max_tokens=4000))) for text in (b"a", b"b", b"c")]
            for outputs in three[:2]:
                assert await received(outputs, 2) == [Started(0), *tokens_of(b"x")]
            nursery.cancel_scope.cancel()
        found = [await heard(outputs) for outputs in three]
        assert [outputs[-1] for outputs in found] == [SHUTDOWN] * 3
        assert {type(output) for outputs in found for output in outputs[:-1]} <= {Token}
        assert found[2] == [SHUTDOWN]
        assert engine._channels == {}


async def test_generate_without_a_running_engine_raises() -> None:
    engine = Engine(ScriptedModel(), {END})
    for _ in range(2):
        with pytest.raises(EngineStopped, match="the engine has stopped"), engine.generate(job(b"a")):
            raise AssertionError
        assert not engine.running
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            assert engine.running
            nursery.cancel_scope.cancel()


class Faulty(ScriptedModel):
    """Raises `error` in `place` for the slots whose prompt contains "bug"."""

    def __init__(self, place: str, error: BaseException, batched: bool) -> None:
        super().__init__(n_slots=3, batched=batched)
        self.place, self.error = place, error

    def fail(self, place: str, slot: int) -> None:
        if place == self.place and b"bug" in bytes(token for token in self._cached_tokens[slot] if token < 256):
            raise self.error

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        super().decode(batch)
        for entry in batch:
            self.fail("decode", entry.slot)

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        self.fail("logits", slot)
        if self.place == "sampler" and b"bug" in bytes(token for token in self._cached_tokens[slot] if token < 256):
            return np.zeros(0, np.float32)  # the sampler has nothing to choose from
        return super().logits(slot, row)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x"), MemoryError(), AssertionError(), KeyError(1), RecursionError()]
)
@pytest.mark.parametrize("place", ["decode", "logits", "sampler"])
async def test_engine_with_a_job_that_raises_ends_that_job_and_serves_the_others(
    place: str, error: Exception, batched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Faulty(place, error, batched)) as engine:
        with generations(engine, job(b"fine"), job(b"a bug"), job(b"well")) as three:
            fine, faulty, well = [await heard(outputs) for outputs in three]
        assert faulty[-1] == BROKEN
        for found, text in ((fine, b"fine"), (well, b"well")):
            # A decode that fails ends all sequences of its step: the faulty one is unknown.
            assert found[1:] == [*tokens_of(text), STOP] or (batched and place == "decode" and found[-1] == BROKEN)
        assert (await answered(engine, job(b"later")))[1:] == [*tokens_of(b"later"), STOP]
    assert any(record.exc_info for record in caplog.records), "a traceback"


class UncopyingModel(ScriptedModel):
    """Fails to copy prefixes, and counts that."""

    failures = 0

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        self.failures += 1
        raise ModelError("no")


async def test_engine_whose_model_cannot_copy_a_prefix_evaluates_it_and_ends_no_job() -> None:
    texts = [b"x" * 50, b"a prefix of many tokens, y", b"a prefix of many tokens, z"]
    model = UncopyingModel(n_slots=3, batched=True)
    async with running(model) as engine:
        with generations(engine, *map(job, texts)) as jobs:
            found = [await heard(outputs) for outputs in jobs]
    answers = [[output for output in outputs if not isinstance(output, Progress)] for outputs in found]
    assert answers == [[Started(0), *tokens_of(text), STOP] for text in texts]
    assert model.failures == 1


class FailingOnce(ScriptedModel):
    """Fails to decode the step that makes the first copy."""

    failed: Sequence[BatchEntry] = ()

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        if self.copies and not self.failed:
            self.failed = batch
            raise ModelError("no")
        super().decode(batch)


def test_loop_keeps_a_prefix_that_a_failed_step_has_copied_into_a_slot_without_an_entry() -> None:
    prefix = b"a prefix of many tokens, "
    model = FailingOnce(batched=True)
    inbox: SimpleQueue[Command] = SimpleQueue()
    loop = InferenceLoop(model, {END}, 0.0, HostCache(model, 0), None, inbox)
    for key, text in enumerate((prefix + b"1", prefix + b"2")):
        inbox.put(Submit(key, job(text)))
    outputs: dict[int, list[EngineOutput]] = {0: [], 1: []}

    def deliver(delivered: Sequence[tuple[int, EngineOutput]]) -> None:
        for key, output in delivered:
            outputs[key].append(output)
        if loop.empty:
            inbox.put(None)

    loop.run(deliver, lambda runs: None)
    assert [entry.slot for entry in model.failed] == [0]
    assert outputs[0][-1] == Finished(FinishReason.FAILED, "no")
    assert (outputs[1][0], outputs[1][-1]) == (Started(1 + len(prefix)), STOP)


class Raising:
    """A grammar and its constraint that raise in one place."""

    def __init__(self, place: str) -> None:
        self.place = place

    def _reach(self, place: str) -> None:
        if place == self.place:
            raise IndexError(place)

    def start(self) -> Self:
        self._reach("start")
        return self

    @property
    def mask_ready(self) -> bool:
        self._reach("mask_ready")
        return False

    def compute_mask(self) -> None:
        pass

    def apply_mask(self, logits: FloatArray) -> None:
        self._reach("apply_mask")

    def fits(self, token: int) -> bool:
        return True

    def accept(self, token: int) -> None:
        self._reach("accept")

    def forced(self) -> Sequence[int]:
        self._reach("forced")
        return ()


@pytest.mark.parametrize("place", ["start", "forced", "mask_ready", "apply_mask", "accept"])
async def test_engine_with_a_grammar_that_raises_ends_that_job_and_serves_the_next(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(ScriptedModel(batched=True)) as engine:
        faulty = msgspec.structs.replace(job(b"a"), grammar=Raising(place))
        assert (await answered(engine, faulty))[-1] == BROKEN
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [place]
        assert (await answered(engine, job(b"later")))[1:] == [*tokens_of(b"later"), STOP]


async def test_engine_with_a_grammar_that_raises_keeps_the_decoded_prompt() -> None:
    async with running(ScriptedModel(n_slots=1, batched=True)) as engine:
        faulty = msgspec.structs.replace(job(b"a"), grammar=Raising("apply_mask"))
        assert (await answered(engine, faulty))[-1] == BROKEN
        later = msgspec.structs.replace(faulty, prompt=(*faulty.prompt, ASSISTANT), grammar=None)
        assert (await answered(engine, later))[0] == Started(len(faulty.prompt))


@pytest.mark.parametrize("n_slots", [1, 2])
async def test_engine_with_an_empty_prompt_ends_that_job_and_serves_the_next(n_slots: int) -> None:
    async with running(ScriptedModel(n_slots=n_slots)) as engine:
        assert await answered(engine, msgspec.structs.replace(job(b"a"), prompt=())) == [BROKEN]
        assert (await answered(engine, job(b"later")))[1:] == [*tokens_of(b"later"), STOP]


async def test_engine_with_a_scheduler_that_raises_ends_its_jobs_and_serves_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No input is known that does this; the thread lives on if one is found."""
    async with running(ScriptedModel()) as engine:
        for name in ("plan", "update"):
            with monkeypatch.context() as context:
                context.setattr(f"engine.scheduler.scheduler.Scheduler.{name}", lambda *_: 1 / 0)
                with generations(engine, job(b"a"), job(b"b"), job(b"c")) as three:
                    assert [(await heard(outputs))[-1] for outputs in three] == [BROKEN] * 3
            assert (await answered(engine, job(b"later")))[1:] == [*tokens_of(b"later"), STOP]


class FatalFault(BaseException):
    pass


async def test_engine_whose_thread_dies_raises_and_every_generation_ends() -> None:
    engine = Engine(Faulty("decode", FatalFault(), batched=False), {END})
    found: list[list[EngineOutput]] = []
    with ExitStack() as stack, trio.fail_after(PATIENCE):
        with pytest.RaisesGroup(FatalFault, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                three = [stack.enter_context(engine.generate(job(text))) for text in (b"aaaa", b"bug", b"c")]
                await trio.sleep_forever()
        found = [await heard(outputs) for outputs in three]
    assert [outputs[-1].reason for outputs in found if isinstance(outputs[-1], Finished)] == [FinishReason.FAILED] * 3
    assert not engine.running


async def test_generate_of_cached_tokens_does_not_evaluate_them_again() -> None:
    model = ScriptedModel(n_slots=2)
    async with running(model) as engine:
        first = job(b"abc")
        assert (await answered(engine, first))[0] == Started(0)
        longer = msgspec.structs.replace(job(b"!"), prompt=(*first.prompt, *b"abc", END, USER, *b"!", ASSISTANT))
        model.decoded.clear()
        assert await answered(engine, longer) == [Started(8), *tokens_of(b"!"), STOP]
    assert model.decoded[0] == BatchEntry(0, 8, [END, USER, ord("!"), ASSISTANT], logits=True)


async def test_generate_with_a_seed_repeats_its_answer() -> None:
    class Undecided(ScriptedModel):
        def logits(self, slot: int, row: int = 0) -> FloatArray:
            return np.where(np.arange(self.info.n_vocab) < END, 0, -np.inf).astype(np.float32)

    async with running(Undecided()) as engine:
        draws = [
            (await answered(engine, msgspec.structs.replace(job(b"a", 20), sampling=SamplingParams(1, 1, 0, 0, seed))))[
                1:
            ]
            for seed in (1, 1, -1, None)
        ]
    assert draws[0] == draws[1]
    assert len({str(draw) for draw in draws}) == 3


async def test_engine_with_an_endless_step_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    engine: Engine

    def slow(message: bytes) -> bytes:
        seen.append(engine.stuck)
        monkeypatch.setattr("engine.runtime.engine.STUCK_SECONDS", 0)
        monkeypatch.setattr("engine.runtime.engine.STUCK_STEPS", 0)
        seen.append(engine.stuck)
        return message

    async with running(ScriptedModel(slow)) as engine:
        assert not engine.stuck
        await answered(engine, job(b"a", 1))
        assert not engine.stuck
    assert seen[:2] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
async def test_batch_job_leaves_the_only_slot_and_continues_from_the_cache(batched: bool) -> None:
    reply = bytes(range(128))
    model = ScriptedModel(lambda message: reply, n_slots=1, batched=batched, seconds_per_token=0.001)
    prompt = b"a batch job with a long prompt"
    async with running(model) as engine:
        with engine.generate(msgspec.structs.replace(job(prompt), lane=Lane.BATCH)) as outputs:
            found = [await outputs.receive()]
            while not isinstance(found[-1], Token):
                found.append(await outputs.receive())
            assert (engine.full(Lane.BATCH), engine.full()) == (True, False)
            interactive = await answered(engine, job(b"somebody", max_tokens=3))
            assert interactive[1:] == [*tokens_of(reply[:3]), LENGTH]
            found += [output async for output in outputs]
        assert [output for output in found if not isinstance(output, Started | Progress)] == [
            *tokens_of(reply[:100]),
            LENGTH,
        ]
        assert engine.stats().preemptions == 1
        assert sum(len(entry.tokens) for entry in model.decoded if entry.position < len(prompt)) < 2 * len(prompt)


async def test_timed_job_gets_the_times_of_each_step() -> None:
    timed = msgspec.structs.replace(job(b"x" * 20), timed=True)
    async with running(ScriptedModel(lambda message: b"ab")) as engine:
        outputs = await answered(engine, timed)
        assert not any(isinstance(each, StepTimes) for each in await answered(engine, job(b"x" * 20)))
    kinds = [type(each) for each in outputs]
    assert kinds == [StepTimes, Started, Progress, StepTimes, Token, StepTimes, Token, StepTimes, Finished]
    moments = [moment for each in outputs if isinstance(each, StepTimes) for moment in msgspec.structs.astuple(each)]
    assert moments == sorted(moments)


class SlowlySaving(ScriptedModel):
    """Saves a slot once the test allows it."""

    def __init__(self, n_slots: int, permits: int = 0) -> None:
        super().__init__(n_slots=n_slots, batched=True, seconds_per_token=0.001)
        self._permits: SimpleQueue[None] = SimpleQueue()
        self._slots: SimpleQueue[int] = SimpleQueue()
        self.saves = 0
        self.allow(permits)

    def allow(self, n: int) -> None:
        for _ in range(n):
            self._permits.put(None)

    def save(self, slot: int, start: int, end: int) -> SavedState:
        self._slots.put(slot)
        self._permits.get(timeout=PATIENCE)
        self.saves += 1
        return super().save(slot, start, end)

    async def begun(self, n: int) -> list[int]:
        """Wait for the beginning of the next `n` saves, and return their slots."""
        return [await trio.to_thread.run_sync(self._slots.get) for _ in range(n)]


@pytest.mark.slow
async def test_idle_thread_saves_slots_and_a_job_waits_for_one_save_at_most() -> None:
    model = SlowlySaving(n_slots=3)
    async with running(model) as engine:
        with generations(engine, *[job(bytes([text]) * 20) for text in b"abc"]) as three:
            for outputs in three:
                await heard(outputs)
        slots = await model.begun(1)
        with engine.generate(job(b"d" * 20)) as outputs:
            model.allow(1)
            assert (await heard(outputs))[-1] == STOP
            assert model.saves == 1, "the job took the slot that was saved, and did not wait for the others"
        model.allow(3)
        slots += await model.begun(3)
    assert sorted(slots) == sorted([0, 1, 2, slots[0]])


@pytest.mark.slow
@pytest.mark.parametrize(("cache_bytes", "saves"), [(0, 0), (100, 1), (10**6, 2)])
async def test_idle_thread_copies_slots_only_into_a_share_of_the_cache(cache_bytes: int, saves: int) -> None:
    model = SlowlySaving(n_slots=2, permits=10)
    engine = Engine(model, {END}, cache_bytes=cache_bytes)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            for text in b"ab":
                await answered(engine, job(bytes([text]) * 20))
            await model.begun(saves)
            await answered(engine, job(b""))
            nursery.cancel_scope.cancel()
    assert model.saves == saves


@pytest.mark.slow
async def test_idle_thread_saves_a_long_slot_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.slot_saver.QUICK_SAVE_BYTES", 30)
    monkeypatch.setattr("engine.runtime.slot_saver.LONG_SAVE_IDLE_SECONDS", 0.1)
    model = SlowlySaving(n_slots=1, permits=2)
    async with running(model) as engine:
        await answered(engine, job(b"a" * 20))
        await model.begun(1)  # from here on, the bytes of a token are known
        began = trio.current_time()  # before the job: on a busy machine, this task reads its end late
        await answered(engine, job(b"b" * 20))
        await model.begun(1)
        assert trio.current_time() - began >= 0.1
