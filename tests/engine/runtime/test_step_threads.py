"""The numbers of threads that a model gets for its steps."""

import pytest

from engine.backends.scripted import ScriptedModel
from engine.model import ThreadCounts
from engine.runtime.step_threads import StepThreads


class CountedSteps(ScriptedModel):
    def __init__(self) -> None:
        super().__init__(batched=True)
        self.used: list[tuple[int, int]] = []

    def use_threads(self, decode: int, batch: int) -> None:
        self.used.append((decode, batch))


def test_decoding_with_unchanged_counts_sets_them_once() -> None:
    model = CountedSteps()
    threads = StepThreads(model, ThreadCounts(1, 2))
    for rows in (64, 1, 3, 1):
        with threads.decoding(rows):
            pass
    assert model.used == [(1, 2)]


def test_decoding_without_counts_leaves_the_models_threads() -> None:
    model = CountedSteps()
    with StepThreads(model, None).decoding(64):
        pass
    assert model.used == []


def test_decoding_that_fails_raises_and_the_next_step_works() -> None:
    model = CountedSteps()
    threads = StepThreads(model, ThreadCounts(1, 2, decode_is_fixed=False, batch_is_fixed=False))
    with pytest.raises(ValueError, match="broken"), threads.decoding(64):
        raise ValueError("broken")
    with threads.decoding(64):
        pass
    assert model.used == [(1, 2)]
