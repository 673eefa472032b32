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


def test_a_guess_is_what_followed_the_last_time() -> None:
    assert Drafter().draft([*STORY, 0, 2, 3, 4], FREE, most=3) == [5, 6, 7]


def test_the_latest_time_counts() -> None:
    drafter = Drafter()
    assert drafter.draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], FREE, most=1) == [5]


def test_nothing_is_guessed_where_nothing_is_known() -> None:
    assert Drafter().draft(STORY, FREE) == []
    assert Drafter().draft([1], FREE) == []


def test_a_guess_is_as_long_as_it_pays() -> None:
    tokens = [*STORY, *STORY, 1, 2, 3]
    assert Drafter().draft(tokens, cost=0.4) == [4]  # 0.6 of being right, 0.36 for two
    assert Drafter().draft(tokens, cost=0.7) == []
    assert len(Drafter().draft(tokens, FREE)) == MOST
    assert Drafter().draft(tokens, FREE, most=2) == [4, 5]


def test_it_gives_up_where_it_is_wrong_and_dares_again_later() -> None:
    drafter, tokens = Drafter(), [*STORY, 1, 2, 3]
    for _ in range(5):
        drafter.learn(guessed=1, right=0)
    assert drafter.draft(tokens, cost=0.4) == []
    for _ in range(300):
        drafter.learn(guessed=0, right=0)
    assert drafter.draft(tokens, cost=0.4) == [4]


def test_it_guesses_further_where_it_is_right() -> None:
    drafter = Drafter()
    for _ in range(20):
        drafter.learn(guessed=2, right=2)
    assert len(drafter.draft([*STORY, *STORY, 1, 2, 3], cost=0.4)) == MOST


class Chain:
    """A Model whose next token depends on the last one only, at random: the distribution is known."""

    def __init__(self, n: int) -> None:
        self.info = ModelInfo(
            "chain", 50_000, 1, n, most_tokens=64, batched=True, shares=True, drafts=True, saves=False, rewinds=True
        )
        weights = np.random.default_rng(7).gamma(0.3, size=(n, n)) + 0.02
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


async def test_the_distribution_is_the_same_with_guesses() -> None:
    """Transitions counted over 30,000 tokens against the known probabilities: Pearson's chi-squared, fixed seed."""
    model = Chain(8)
    sampling = Sampling(temperature=1, top_p=1, top_k=0, min_p=0, seed=11)
    tokens: list[int] = []
    async with trio.open_nursery() as nursery:
        engine = Engine(model, [])
        await nursery.start(engine.run)
        with engine.generate(Job((0,), 30_000, sampling)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Token):
                    tokens.append(piece.id)
        nursery.cancel_scope.cancel()
    assert len(tokens) == 30_000
    counts = np.zeros((8, 8))
    for last, token in pairwise(tokens):
        counts[last, token] += 1
    expected = model.table * counts.sum(axis=1, keepdims=True)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 99.6, "the 0.1% point for 8 * 7 degrees of freedom"
    assert sum(rows > 1 for rows in model.wanted) > 1000, "guesses were made"
