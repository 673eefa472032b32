"""Prefixes of models whose state cannot be cut: a naive model checks every continuation."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.job import EngineOutput, Job, SamplingParams, Started, Token
from engine.model import BatchEntry, FloatArray, ModelInfo, SavedState
from engine.runtime.host_cache import HostCache
from engine.scheduler import Scheduler

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
SYSTEM = tuple(range(100, 140))
MOST = 4


def next_token(tokens: Sequence[int]) -> int:
    """Return the naive model's next token: a function of all tokens before it."""
    return (sum(tokens) * 31 + len(tokens)) % 17


class NaiveSlots:
    """A Model without logits. `windowed`: slots can be truncated, but not below the tokens that were restored."""

    def __init__(self, n_slots: int, *, windowed: bool) -> None:
        self.info = ModelInfo(
            "naive",
            1000,
            n_slots,
            1000,
            max_batch_tokens=64,
            batched=True,
            copies_prefixes=windowed,
            multi_row_logits=windowed,
            saves_state=True,
            cuts_state=False,
            truncates=windowed,
        )
        self.slots: list[list[int]] = [[] for _ in range(n_slots)]
        self.floors = [0] * n_slots
        self.entries: list[BatchEntry] = []

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        for entry in batch:
            self._truncate(entry.slot, entry.position)
            self.slots[entry.slot] += entry.tokens
            self.entries.append(entry)

    def sampled(self, entry: BatchEntry) -> list[Token]:
        slot = self.slots[entry.slot]
        tokens: list[Token] = []
        for behind in reversed(range(entry.logits)):
            tokens.append(Token(next_token(slot[: len(slot) - behind])))
            if behind and tokens[-1].id != slot[-behind]:
                break
        return tokens

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        assert self.info.copies_prefixes
        self.slots[target] = list(self.slots[source])
        self.floors[target] = self.floors[source]
        self._truncate(target, n)

    def save(self, slot: int, start: int, end: int) -> SavedState:
        self._truncate(slot, end)
        tokens = self.slots[slot]
        return SavedState(msgspec.json.encode((start, tokens[start:])), msgspec.json.encode(tokens))

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
        tokens: list[int] = []
        for state in states:
            start, part = msgspec.json.decode(state.rows, type=tuple[int, list[int]])
            assert start == len(tokens)
            tokens += part
        assert tokens == msgspec.json.decode(states[-1].tail)
        assert len(tokens) == n
        self.slots[slot], self.floors[slot] = tokens, n

    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        start, tokens = msgspec.json.decode(state.rows, type=tuple[int, list[int]])
        left, right = (start, tokens[:at]), (start + at, tokens[at:])
        return SavedState(msgspec.json.encode(left), b""), SavedState(msgspec.json.encode(right), state.tail)

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        return np.zeros(0, np.float32)

    def use_threads(self, decode: int, batch: int) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...

    def _truncate(self, slot: int, n: int) -> None:
        assert n <= len(self.slots[slot]), "positions are contiguous"
        if n == 0:
            self.floors[slot] = 0
        if n < len(self.slots[slot]):
            assert n == 0 or (self.info.truncates and n >= self.floors[slot]), "these tokens cannot be dropped"
            del self.slots[slot][n:]


class Setup:
    def __init__(self, n_slots: int, *, windowed: bool) -> None:
        self.model = NaiveSlots(n_slots, windowed=windowed)
        self.cache = HostCache(self.model, 1 << 20)
        self.scheduler = Scheduler(self.model.info, (), tree=self.cache.tree)

    def run(self, *jobs: Job) -> list[int]:
        """Run jobs together, check their answers, and return the numbers of cached tokens."""
        outputs: list[list[EngineOutput]] = [[] for _ in jobs]
        for key, job in enumerate(jobs):
            self.scheduler.add(key, job)
        while not self.scheduler.idle:
            plan = self.scheduler.plan()
            assert not self.cache.carry_out(plan.transfers)
            self.model.decode(plan.entries)
            sampled = {entry.slot: self.model.sampled(entry) for entry in plan.entries}
            for key, output in self.scheduler.update(plan, sampled, 0.01):
                outputs[key].append(output)
        for job, found in zip(jobs, outputs, strict=True):
            assert [output.id for output in found if isinstance(output, Token)] == answer(job.prompt, job.max_tokens)
        return [output.cached_tokens for found in outputs for output in found if isinstance(output, Started)]


def answer(prompt: tuple[int, ...], most: int = MOST) -> list[int]:
    tokens = list(prompt)
    for _ in range(most):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def job(*prompt: int, checkpoints: tuple[int, ...] = ()) -> Job:
    return Job(prompt, MOST, GREEDY, checkpoints=checkpoints)


def question(seed: int) -> range:
    return range(1000 * seed, 1000 * seed + 20)


def test_prefill_of_a_recurrent_model_stops_at_checkpoints() -> None:
    setup = Setup(1, windowed=False)
    assert setup.run(job(*SYSTEM, *question(1), checkpoints=(40, 58))) == [0]
    ends = {entry.position + len(entry.tokens) for entry in setup.model.entries}
    assert {40, 58} <= ends


def test_prefill_of_a_windowed_model_does_not_stop_at_checkpoints() -> None:
    setup = Setup(1, windowed=True)
    assert setup.run(job(*SYSTEM, *question(1), checkpoints=(41,))) == [0]
    assert 41 not in {entry.position for entry in setup.model.entries}


@pytest.mark.parametrize("windowed", [False, True])
def test_prompt_with_a_cached_checkpoint_continues_there(windowed: bool) -> None:
    setup = Setup(1, windowed=windowed)
    assert setup.run(job(*SYSTEM, *question(1), checkpoints=(40,))) == [0]
    assert setup.run(job(*SYSTEM, *question(2), checkpoints=(40,))) == [40]
    first = (*SYSTEM, *question(1))
    assert setup.run(job(*first, *answer(first), *question(3), checkpoints=(40,))) == [len(first) + MOST - 1]
    assert setup.run(job(*SYSTEM, *question(4))) == [40]


@pytest.mark.parametrize("windowed", [False, True])
def test_prompts_that_part_without_a_checkpoint_part_there_the_next_time(windowed: bool) -> None:
    """The second prompt shows where they part; the third one profits. (A window is still in its slot.)"""
    setup = Setup(1, windowed=windowed)
    assert setup.run(job(*SYSTEM, *question(1))) == [0]
    assert setup.run(job(*SYSTEM, *question(2))) == [40 * windowed]
    assert setup.run(job(*question(5), *question(6))) == [0]
    assert setup.run(job(*SYSTEM, *question(3))) == [40]


def test_prompts_that_arrive_together_evaluate_a_common_checkpoint_once() -> None:
    setup = Setup(4, windowed=False)
    jobs = [job(*SYSTEM, *question(seed), checkpoints=(40,)) for seed in range(1, 5)]
    assert sorted(setup.run(*jobs)) == [0, 40, 40, 40]
    assert sum(entry.position == 0 for entry in setup.model.entries) == 1


PARTS = st.lists(st.integers(0, 2), min_size=1, max_size=3)
"""Turns of a conversation, each one of three."""


@pytest.mark.slow
@pytest.mark.parametrize("windowed", [False, True])
@given(
    rounds=st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=6),
    n_slots=st.integers(1, 3),
    marked=st.booleans(),
)
@settings(max_examples=60)
def test_answers_of_any_jobs_are_those_without_a_cache(
    rounds: list[list[list[int]]], n_slots: int, marked: bool, windowed: bool
) -> None:
    setup = Setup(n_slots, windowed=windowed)
    for parts in rounds:
        prompts = [[token for part in turns for token in range(100 * part, 100 * part + 20)] for turns in parts]
        jobs = [job(*prompt, checkpoints=tuple(range(20, len(prompt), 20)) if marked else ()) for prompt in prompts]
        setup.run(*jobs)
