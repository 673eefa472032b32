"""Drafts change only the time."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import trio

from engine.job import Job, SamplingParams, Token
from engine.model import BatchEntry, FloatArray, ModelInfo, SavedState
from engine.runtime.engine import Engine
from engine.scheduler.ngram_drafter import INITIAL_ACCEPTANCE_RATE, MAX_DRAFT_TOKENS, NgramDrafter, choose_draft_length

STORY = [1, 2, 3, 4, 5, 6, 7, 8, 9]
AGAIN = [*STORY, *STORY, 1, 2, 3]


def after(came: list[int], times: int = 20) -> NgramDrafter:
    """Return a drafter that has drafted the tokens after AGAIN, and has seen `came` that often."""
    drafter = NgramDrafter()
    for _ in range(times):
        drafter.draft(AGAIN)
        drafter.learn(came)
    drafter.draft(AGAIN)
    return drafter


def linear(copy: float) -> Callable[[int], float]:
    """Return a cost function with a constant cost for each draft token."""
    return lambda n_draft: 1 + copy * n_draft


def test_draft_returns_what_followed_the_last_occurrence() -> None:
    assert NgramDrafter().draft([*STORY, 0, 2, 3, 4])[:3] == [5, 6, 7]
    assert NgramDrafter().draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3])[:1] == [5]
    assert len(NgramDrafter().draft(AGAIN)) == MAX_DRAFT_TOKENS


def test_draft_without_a_repetition_is_empty() -> None:
    assert list(NgramDrafter().draft(STORY)) == []
    assert list(NgramDrafter().draft([1])) == []


def test_expected_acceptance_sums_the_powers_of_the_rate() -> None:
    drafter = after([], times=1)
    assert [drafter.expected_acceptance(n) for n in range(3)] == [
        1,
        1 + INITIAL_ACCEPTANCE_RATE,
        1 + INITIAL_ACCEPTANCE_RATE + INITIAL_ACCEPTANCE_RATE**2,
    ]
    assert drafter.expected_acceptance(MAX_DRAFT_TOKENS) == drafter.expected_acceptance(MAX_DRAFT_TOKENS + 5)
    assert NgramDrafter().expected_acceptance(MAX_DRAFT_TOKENS) == 1


def test_choose_draft_length_returns_the_length_that_pays() -> None:
    unsure = after([], times=1)
    assert choose_draft_length([unsure], MAX_DRAFT_TOKENS, linear(0.3)) == 1  # 1.4 tokens for 1.3; 1.56 for 1.6
    assert choose_draft_length([unsure], MAX_DRAFT_TOKENS, linear(0.5)) == 0
    assert choose_draft_length([unsure], MAX_DRAFT_TOKENS, linear(0.0)) == MAX_DRAFT_TOKENS
    assert choose_draft_length([unsure], 2, linear(0.0)) == 2
    assert choose_draft_length([after([4, 5])], MAX_DRAFT_TOKENS, linear(0.5)) == MAX_DRAFT_TOKENS


def test_choose_draft_length_with_an_empty_draft_weighs_its_cost() -> None:
    sure, ignorant = after([4, 5]), NgramDrafter()
    assert choose_draft_length([sure, sure, ignorant], 1, linear(0.6)) == 1
    assert choose_draft_length([sure, ignorant, ignorant], 1, linear(0.6)) == 0


def test_choose_draft_length_skips_an_expensive_length() -> None:
    """In a pair of rows the second one can be nearly free."""
    assert choose_draft_length([after([4, 5])], 3, {0: 1.0, 1: 1.9, 2: 2.9, 3: 2.6}.__getitem__) == 3


def test_learn_lowers_the_rate_and_counts_unevaluated_drafts() -> None:
    drafter = after([0])
    assert choose_draft_length([drafter], MAX_DRAFT_TOKENS, linear(0.2)) == 0
    for _ in range(20):
        drafter.learn([4])
        drafter.draft(AGAIN)
    assert choose_draft_length([drafter], 1, linear(0.8)) == 1


def test_learn_without_a_draft_ignores_the_last_draft() -> None:
    drafter = after([4], times=3)
    before = drafter.expected_acceptance(1)
    drafter.learn([4])
    drafter.learn([0])
    drafter.learn([0])
    drafter.draft(AGAIN)
    assert drafter.expected_acceptance(1) > before


class Chain:
    """A Model whose next token depends on the last one only, at random: the distribution is known."""

    def __init__(self, n: int, *, drafts: bool = True, step_seconds: float = 0.0) -> None:
        """`step_seconds`: time of a step, whatever its rows, so that drafts pay on a busy machine too."""
        self._step_seconds = step_seconds
        self.info = ModelInfo(
            "chain",
            50_000,
            1,
            n,
            max_batch_tokens=64,
            batched=True,
            copies_prefixes=True,
            multi_row_logits=drafts,
            saves_state=False,
            cuts_state=False,
            truncates=True,
        )
        weights = np.random.default_rng(7).gamma(0.1, size=(n, n)) + 0.005
        self.table = weights / weights.sum(axis=1, keepdims=True)
        self._logits = list(np.log(self.table).astype(np.float32))
        self.wanted: list[int] = []
        self._rows: list[FloatArray] = []

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        (entry,) = batch
        time.sleep(self._step_seconds)
        self._rows = [self._logits[token].copy() for token in entry.tokens[-entry.logits :]]
        self.wanted.append(entry.logits)

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        return self._rows[row]

    def copy_prefix(self, source: int, target: int, n: int) -> None: ...
    def use_threads(self, decode: int, batch: int) -> None: ...
    def interrupt(self) -> None: ...
    def save(self, slot: int, start: int, end: int) -> SavedState:
        return SavedState(b"", b"")

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None: ...
    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        return state, state

    def close(self) -> None: ...


async def answered(model: Chain, n: int, sampling: SamplingParams) -> list[int]:
    async with trio.open_nursery() as nursery:
        engine = Engine(model, [])
        await nursery.start(engine.run)
        with engine.generate(Job((0,), n, sampling)) as outputs:
            tokens = [output.id async for output in outputs if isinstance(output, Token)]
        nursery.cancel_scope.cancel()
    return tokens


@pytest.mark.slow
async def test_drafts_leave_the_distribution_unchanged() -> None:
    """Transitions counted over 30,000 tokens against the known probabilities: Pearson's chi-squared, fixed seed."""
    model = Chain(8)
    sampling = SamplingParams(temperature=1, top_p=1, top_k=0, min_p=0, seed=11)
    tokens = await answered(model, 30_000, sampling)
    assert len(tokens) == 30_000
    counts = np.zeros((8, 8))
    for last, token in pairwise(tokens):
        counts[last, token] += 1
    expected = model.table * counts.sum(axis=1, keepdims=True)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 99.6, "the 0.1% point for 8 * 7 degrees of freedom"
    assert sum(rows > 1 for rows in model.wanted) > 1000, "n_draft were made"


@pytest.mark.slow
async def test_drafts_leave_the_tokens_of_a_seed_unchanged() -> None:
    """The sampler draws from every row of a draft with the history before that very row."""
    sampling = SamplingParams(
        1, 1, 0, 0, 5, presence_penalty=0.3, frequency_penalty=0.02, repeat_penalty=1.2, repeat_last_n=5
    )
    drafting = Chain(8, step_seconds=0.0001)
    assert await answered(drafting, 1000, sampling) == await answered(Chain(8, drafts=False), 1000, sampling)
    assert sum(rows > 1 for rows in drafting.wanted) > 30, "n_draft were made"
