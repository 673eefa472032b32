"""Guesses, and that they change nothing but the time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import trio

from engine import Engine, Job, ModelInfo, Sampling, Token
from engine.drafter import MOST, Drafter
from engine.model import Chunk, FloatArray

FREE = 0.0
STORY = [1, 2, 3, 4, 5, 6, 7, 8, 9]


def after(drafter: Drafter, tokens: list[int], came: list[int], times: int) -> Drafter:
    for _ in range(times):
        drafter.draft(tokens, cost=1)
        drafter.learn(came)
    return drafter


def test_a_guess_is_what_followed_the_last_time() -> None:
    assert Drafter().draft([*STORY, 0, 2, 3, 4], FREE, most=3) == [5, 6, 7]


def test_the_latest_time_counts() -> None:
    assert Drafter().draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], FREE, most=1) == [5]


def test_nothing_is_guessed_where_nothing_is_known() -> None:
    assert list(Drafter().draft(STORY, FREE)) == []
    assert list(Drafter().draft([1], FREE)) == []


def test_a_guess_is_as_long_as_it_pays() -> None:
    tokens = [*STORY, *STORY, 1, 2, 3]
    assert list(Drafter().draft(tokens, cost=0.3)) == [4]  # 0.4 of being right, 0.16 for two
    assert list(Drafter().draft(tokens, cost=0.5)) == []
    assert len(Drafter().draft(tokens, FREE)) == MOST
    assert list(Drafter().draft(tokens, FREE, most=2)) == [4, 5]


def test_it_guesses_further_where_it_is_right() -> None:
    tokens = [*STORY, *STORY, 1, 2, 3]
    drafter = after(Drafter(), tokens, came=[4, 5], times=20)
    assert len(drafter.draft(tokens, cost=0.4)) == MOST


def test_it_gives_up_where_it_is_wrong_and_learns_from_guesses_that_were_not_made() -> None:
    tokens = [*STORY, 1, 2, 3]
    drafter = after(Drafter(), tokens, came=[0], times=20)
    assert list(drafter.draft(tokens, cost=0.2)) == []
    after(drafter, tokens, came=[4], times=20)
    assert list(drafter.draft(tokens, cost=0.8))[:1] == [4]


class Chain:
    """A Model whose next token depends on the last one only, at random: the distribution is known."""

    def __init__(self, n: int, *, drafts: bool = True) -> None:
        self.info = ModelInfo(
            "chain", 50_000, 1, n, most_tokens=64, batched=True, shares=True, drafts=drafts, saves=False, rewinds=True
        )
        weights = np.random.default_rng(7).gamma(0.1, size=(n, n)) + 0.005
        self.table = weights / weights.sum(axis=1, keepdims=True)
        self.wanted: list[int] = []
        self._rows: list[FloatArray] = []

    def decode(self, batch: Sequence[Chunk]) -> None:
        (chunk,) = batch
        self._rows = [np.log(self.table[token]).astype(np.float32) for token in chunk.tokens[-chunk.logits :]]
        self.wanted.append(chunk.logits)

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        return self._rows[row]

    def share(self, source: int, target: int, n: int) -> None: ...
    def use_threads(self, n: int) -> None: ...
    def interrupt(self) -> None: ...
    def save(self, slot: int) -> bytes:
        return b""

    def restore(self, slot: int, state: bytes, n: int) -> None: ...
    def close(self) -> None: ...


async def answered(model: Chain, n: int, sampling: Sampling) -> list[int]:
    async with trio.open_nursery() as nursery:
        engine = Engine(model, [])
        await nursery.start(engine.run)
        with engine.generate(Job((0,), n, sampling)) as pieces:
            tokens = [piece.id async for piece in pieces if isinstance(piece, Token)]
        nursery.cancel_scope.cancel()
    return tokens


async def test_the_distribution_is_the_same_with_guesses() -> None:
    """Transitions counted over 30,000 tokens against the known probabilities: Pearson's chi-squared, fixed seed."""
    model = Chain(8)
    sampling = Sampling(temperature=1, top_p=1, top_k=0, min_p=0, seed=11)
    tokens = await answered(model, 30_000, sampling)
    assert len(tokens) == 30_000
    counts = np.zeros((8, 8))
    for last, token in pairwise(tokens):
        counts[last, token] += 1
    expected = model.table * counts.sum(axis=1, keepdims=True)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 99.6, "the 0.1% point for 8 * 7 degrees of freedom"
    assert sum(rows > 1 for rows in model.wanted) > 1000, "guesses were made"


async def test_guesses_do_not_change_what_a_seed_draws_though_each_token_depends_on_all_before_it() -> None:
    """Every row of a guess is drawn from with the history before that very row."""
    sampling = Sampling(
        1, 1, 0, 0, 5, presence_penalty=0.3, frequency_penalty=0.02, repeat_penalty=1.2, repeat_last_n=5
    )
    guessing = Chain(8)
    assert await answered(guessing, 3000, sampling) == await answered(Chain(8, drafts=False), 3000, sampling)
    assert sum(rows > 1 for rows in guessing.wanted) > 100, "guesses were made"
