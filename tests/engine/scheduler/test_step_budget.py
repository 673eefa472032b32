"""How many prompt tokens a step carries, and what a guess costs."""

import math
from collections.abc import Callable

import pytest

from engine.scheduler.step_budget import (
    FIRST_TOKEN_WEIGHT,
    INITIAL_DRAFT_COST,
    INITIAL_PREFILL_TOKENS,
    MAX_GAP_STEPS,
    MAX_PREFILL_STEP_SECONDS,
    MIN_GAP_SECONDS,
    MIN_PREFILL_TOKENS,
    StepBudget,
)

PASS, TOKEN = 0.006, 0.002
"""Seconds of a machine whose steps are not proportional to their tokens: each costs a pass over the weights."""


def machine(tokens: int) -> float:
    return PASS + TOKEN * tokens


def played(pace: StepBudget, streams: int, steps: int = 60, cost: Callable[[int], float] = machine) -> StepBudget:
    """Steps of so many streams, and as many of a long prompt in between."""
    for _ in range(steps):
        if streams:
            pace.record_decode(streams, 0, cost(streams))
        tokens = pace.prefill_tokens(streams)
        pace.record_prefill(streams, tokens, cost(tokens))
    return pace


def test_before_anything_is_measured_a_step_is_short() -> None:
    assert StepBudget(512).prefill_tokens(0) == StepBudget(512).prefill_tokens(4) == INITIAL_PREFILL_TOKENS


@pytest.mark.parametrize("streams", [4, 8, 16])
def test_the_tokens_of_a_stream_are_so_many_usual_steps_apart(streams: int) -> None:
    tokens = played(StepBudget(512), streams).prefill_tokens(streams)
    usual = machine(streams)
    assert usual + machine(tokens - 1) < max(MAX_GAP_STEPS * usual, MIN_GAP_SECONDS) <= usual + machine(tokens + 1)


def test_beside_a_quick_stream_prompts_still_have_room() -> None:
    tokens = played(StepBudget(512), 1).prefill_tokens(1)
    assert machine(1) + machine(tokens - 1) < MIN_GAP_SECONDS <= machine(1) + machine(tokens + 1)


def test_alone_a_prompt_takes_what_a_newcomer_may_wait() -> None:
    tokens = played(StepBudget(512), 0).prefill_tokens(0)
    assert machine(tokens - 1) < MAX_PREFILL_STEP_SECONDS <= machine(tokens + 1)


def test_a_longest_step_is_kept() -> None:
    tokens = played(StepBudget(512, max_step_seconds=0.1), 4).prefill_tokens(4)
    assert machine(4) + machine(tokens - 1) < 0.1 <= machine(4) + machine(tokens + 1)


def test_every_prompt_goes_on_even_where_one_token_takes_too_long() -> None:
    assert played(StepBudget(512), 1, cost=lambda tokens: 0.006 * tokens**3).prefill_tokens(1) == MIN_PREFILL_TOKENS


def test_a_fast_machine_is_bounded_by_the_batch() -> None:
    assert played(StepBudget(512), 4, cost=lambda tokens: 1e-7).prefill_tokens(4) == 512


def test_where_others_wait_behind_a_prompt_the_few_who_stream_are_held_up_for_the_many() -> None:
    pace = played(StepBudget(512), 2)
    assert pace.prefill_tokens(2, prompts=1) * 3 < pace.prefill_tokens(2, prompts=6)
    assert machine(2) + machine(pace.prefill_tokens(2, prompts=6)) <= FIRST_TOKEN_WEIGHT * 5 / 2 * MIN_GAP_SECONDS
    assert played(StepBudget(512), 4).prefill_tokens(4, prompts=2) == played(StepBudget(512), 4).prefill_tokens(4)


def test_nobody_is_held_up_for_longer_than_a_newcomer() -> None:
    assert machine(played(StepBudget(512), 1).prefill_tokens(1, prompts=60)) <= MAX_PREFILL_STEP_SECONDS


def test_a_step_that_another_process_stalled_halves_at_most_and_is_soon_forgotten() -> None:
    pace = played(StepBudget(512), 4)
    before = pace.prefill_tokens(4)
    pace.record_prefill(4, before, 30.0)
    assert pace.prefill_tokens(4) >= before // 2 > MIN_PREFILL_TOKENS
    assert played(pace, 4, steps=20).prefill_tokens(4) >= before - 1


def test_it_recovers_from_the_least() -> None:
    pace = played(StepBudget(512), 1)
    for _ in range(20):
        pace.record_prefill(1, pace.prefill_tokens(1), 30.0)
    assert pace.prefill_tokens(1) == MIN_PREFILL_TOKENS
    assert played(pace, 1).prefill_tokens(1) == pytest.approx(played(StepBudget(512), 1).prefill_tokens(1), abs=1)


def test_it_learns_when_tokens_become_dearer() -> None:
    pace = played(StepBudget(512), 0)
    before = pace.prefill_tokens(0)
    assert played(pace, 0, cost=lambda tokens: 2 * machine(tokens)).prefill_tokens(0) < before * 0.6


def test_the_cost_of_guesses_is_measured_for_each_number_of_them_and_of_streams() -> None:
    pace = StepBudget(512)
    assert [pace.cost(2, guesses) for guesses in range(3)] == [1, 1 + INITIAL_DRAFT_COST, 1 + 2 * INITIAL_DRAFT_COST]
    for _ in range(50):
        pace.record_decode(2, 0, 0.010)
        pace.record_decode(2, 1, 0.014)
    assert pace.cost(2, 1) == pytest.approx(1.4, rel=0.05)
    assert (pace.cost(2, 0), pace.cost(1, 1)) == (1, 1 + INITIAL_DRAFT_COST)


@pytest.mark.parametrize(("seconds", "slope"), [(0.012, 0.2), (0.019, INITIAL_DRAFT_COST)])
def test_a_number_of_guesses_that_was_not_tried_is_judged_by_the_nearest_but_not_kept_from_being_tried(
    seconds: float, slope: float
) -> None:
    pace = StepBudget(512)
    pace.record_decode(2, 0, 0.010)
    pace.record_decode(2, 1, seconds)
    pace.record_decode(2, 8, 0.090)
    assert pace.cost(2, 3) == pytest.approx(1 + 3 * slope)


def test_guesses_keep_tokens_as_near_as_somebody_has_said() -> None:
    pace = StepBudget(512, max_step_seconds=0.020)
    pace.record_decode(1, 0, 0.008)
    bearable = [guesses for guesses in range(20) if pace.cost(1, guesses) < math.inf]
    assert bearable == [guesses for guesses in range(20) if 1 + INITIAL_DRAFT_COST * guesses <= 20 / 8]
    for _ in range(20):
        pace.record_decode(1, 0, 1.0)
    assert (pace.cost(1, 0), pace.cost(1, 1)) == (1, math.inf), "a step without a guess is always one"


def test_a_stalled_guess_does_not_end_guessing_for_ever() -> None:
    pace = StepBudget(512)
    pace.record_decode(1, 0, 0.008)
    pace.record_decode(1, 1, 3.0)
    assert pace.cost(1, 1) == 2, "more would be dearer than one after the other"
    for _ in range(5000):
        pace.record_decode(1, 0, 0.008)
    assert pace.cost(1, 1) == pytest.approx(1 + INITIAL_DRAFT_COST, rel=0.01)
