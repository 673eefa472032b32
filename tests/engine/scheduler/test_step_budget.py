"""The number of prompt tokens in a step, and the cost of drafts."""

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
    """Record steps of that many streams, alternating with those of a long prompt."""
    for _ in range(steps):
        if streams:
            pace.record_decode(streams, 0, cost(streams))
        tokens = pace.prefill_tokens(streams)
        pace.record_prefill(streams, tokens, cost(tokens))
    return pace


def test_prefill_tokens_without_measurements_are_few() -> None:
    assert StepBudget(512).prefill_tokens(0) == StepBudget(512).prefill_tokens(4) == INITIAL_PREFILL_TOKENS


@pytest.mark.parametrize("streams", [4, 8, 16])
def test_prefill_tokens_beside_a_stream_limit_the_gap(streams: int) -> None:
    tokens = played(StepBudget(512), streams).prefill_tokens(streams)
    usual = machine(streams)
    assert usual + machine(tokens - 1) < max(MAX_GAP_STEPS * usual, MIN_GAP_SECONDS) <= usual + machine(tokens + 1)


def test_prefill_tokens_beside_a_fast_stream_use_the_minimum_gap() -> None:
    tokens = played(StepBudget(512), 1).prefill_tokens(1)
    assert machine(1) + machine(tokens - 1) < MIN_GAP_SECONDS <= machine(1) + machine(tokens + 1)


def test_prefill_tokens_of_a_lone_prompt_fill_the_maximum_step() -> None:
    tokens = played(StepBudget(512), 0).prefill_tokens(0)
    assert machine(tokens - 1) < MAX_PREFILL_STEP_SECONDS <= machine(tokens + 1)


def test_prefill_tokens_respect_a_configured_limit() -> None:
    tokens = played(StepBudget(512, max_step_seconds=0.1), 4).prefill_tokens(4)
    assert machine(4) + machine(tokens - 1) < 0.1 <= machine(4) + machine(tokens + 1)


def test_prefill_tokens_never_fall_below_the_minimum() -> None:
    assert played(StepBudget(512), 1, cost=lambda tokens: 0.006 * tokens**3).prefill_tokens(1) == MIN_PREFILL_TOKENS


def test_prefill_tokens_never_exceed_the_batch() -> None:
    assert played(StepBudget(512), 4, cost=lambda tokens: 1e-7).prefill_tokens(4) == 512


def test_prefill_tokens_with_many_waiting_grow_in_proportion() -> None:
    pace = played(StepBudget(512), 2)
    assert pace.prefill_tokens(2, prompts=1) * 3 < pace.prefill_tokens(2, prompts=6)
    assert machine(2) + machine(pace.prefill_tokens(2, prompts=6)) <= FIRST_TOKEN_WEIGHT * 5 / 2 * MIN_GAP_SECONDS
    assert played(StepBudget(512), 4).prefill_tokens(4, prompts=2) == played(StepBudget(512), 4).prefill_tokens(4)


def test_prefill_tokens_with_many_waiting_stay_under_the_maximum_step() -> None:
    assert machine(played(StepBudget(512), 1).prefill_tokens(1, prompts=60)) <= MAX_PREFILL_STEP_SECONDS


def test_record_prefill_of_a_stalled_step_halves_at_most_and_recovers() -> None:
    pace = played(StepBudget(512), 4)
    before = pace.prefill_tokens(4)
    pace.record_prefill(4, before, 30.0)
    assert pace.prefill_tokens(4) >= before // 2 > MIN_PREFILL_TOKENS
    assert played(pace, 4, steps=20).prefill_tokens(4) >= before - 1


def test_record_prefill_recovers_from_the_minimum() -> None:
    pace = played(StepBudget(512), 1)
    for _ in range(20):
        pace.record_prefill(1, pace.prefill_tokens(1), 30.0)
    assert pace.prefill_tokens(1) == MIN_PREFILL_TOKENS
    assert played(pace, 1).prefill_tokens(1) == pytest.approx(played(StepBudget(512), 1).prefill_tokens(1), abs=1)


def test_record_prefill_learns_rising_costs() -> None:
    pace = played(StepBudget(512), 0)
    before = pace.prefill_tokens(0)
    assert played(pace, 0, cost=lambda tokens: 2 * machine(tokens)).prefill_tokens(0) < before * 0.6


def test_cost_is_measured_by_draft_length_and_streams() -> None:
    pace = StepBudget(512)
    assert [pace.cost(2, n_draft) for n_draft in range(3)] == [1, 1 + INITIAL_DRAFT_COST, 1 + 2 * INITIAL_DRAFT_COST]
    for _ in range(50):
        pace.record_decode(2, 0, 0.010)
        pace.record_decode(2, 1, 0.014)
    assert pace.cost(2, 1) == pytest.approx(1.4, rel=0.05)
    assert (pace.cost(2, 0), pace.cost(1, 1)) == (1, 1 + INITIAL_DRAFT_COST)


@pytest.mark.parametrize(("seconds", "slope"), [(0.012, 0.2), (0.019, INITIAL_DRAFT_COST)])
def test_cost_of_an_untried_length_follows_the_nearest_and_is_bounded(seconds: float, slope: float) -> None:
    pace = StepBudget(512)
    pace.record_decode(2, 0, 0.010)
    pace.record_decode(2, 1, seconds)
    pace.record_decode(2, 8, 0.090)
    assert pace.cost(2, 3) == pytest.approx(1 + 3 * slope)


@given(steps=st.lists(st.tuples(st.integers(0, 8), st.floats(0, 10)), max_size=20))
@example(steps=[(0, 0.02), (1, 0.01)])
def test_cost_is_at_least_one_whatever_was_measured(steps: list[tuple[int, float]]) -> None:
    """The example: during the steps without drafts, other processes had the cores."""
    budget = StepBudget(512)
    for n_draft, seconds in steps:
        budget.record_decode(1, n_draft, seconds)
    assert all(budget.cost(1, n_draft) >= 1 for n_draft in range(32))


@pytest.mark.parametrize(
    ("run_seconds", "pays"),
    [
        ({}, {2: True, 8: True}),
        ({2: 0.02}, {2: False, 4: False, 8: False}),
        ({8: 0.02}, {2: True, 4: True, 8: True, 16: True}),
        ({2: 0.012, 8: 0.02}, {2: False, 3: False, 7: True}),
    ],
)
def test_forced_run_pays_if_it_gives_more_tokens_a_second_than_all_streams(
    run_seconds: dict[int, float], pays: dict[int, bool]
) -> None:
    """Four streams give a token each in 20 ms."""
    budget = StepBudget(512)
    budget.record_decode(4, 0, 0.02)
    for tokens, seconds in run_seconds.items():
        budget.record_forced_run(tokens, seconds)
    assert {tokens: budget.forced_run_pays(4, tokens) for tokens in pays} == pays


def test_forced_run_pays_again_some_steps_after_a_stalled_forced_run() -> None:
    budget = StepBudget(512)
    budget.record_decode(4, 0, 0.02)
    budget.record_forced_run(8, 0.05)
    assert not budget.forced_run_pays(4, 8)
    for _ in range(200):
        budget.record_decode(4, 0, 0.02)
    assert budget.forced_run_pays(4, 8)


def test_cost_beyond_a_configured_limit_is_infinite() -> None:
    pace = StepBudget(512, max_step_seconds=0.020)
    pace.record_decode(1, 0, 0.008)
    bearable = [n_draft for n_draft in range(20) if pace.cost(1, n_draft) < math.inf]
    assert bearable == [n_draft for n_draft in range(20) if 1 + INITIAL_DRAFT_COST * n_draft <= 20 / 8]
    for _ in range(20):
        pace.record_decode(1, 0, 1.0)
    assert (pace.cost(1, 0), pace.cost(1, 1)) == (1, math.inf), "a step without a draft is always one"


def test_cost_after_a_stalled_draft_recovers() -> None:
    pace = StepBudget(512)
    pace.record_decode(1, 0, 0.008)
    pace.record_decode(1, 1, 3.0)
    assert pace.cost(1, 1) == 2, "more would be dearer than one after the other"
    for _ in range(5000):
        pace.record_decode(1, 0, 0.008)
    assert pace.cost(1, 1) == pytest.approx(1 + INITIAL_DRAFT_COST, rel=0.01)
