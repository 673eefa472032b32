"""`engine.sampling.penalties` against a plain reference, and their effect on the sampler."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.job import SamplingParams
from engine.model import FloatArray
from engine.sampling.penalties import Penalties
from engine.sampling.sampler import Sampler
from engine.sampling.shortlist import shortlist

N = 24
GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)


def array(*logits: float) -> FloatArray:
    return np.array(logits, np.float32)


def reference(
    logits: FloatArray, params: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
) -> FloatArray:
    """Return the adjusted logits, token by token from the whole history."""
    before = [*prompt, *generated]
    recent = before if params.repeat_last_n < 0 else before[max(0, len(before) - params.repeat_last_n) :]
    counts = Counter(generated)
    changed = logits.astype(np.float64)
    for token in range(len(logits)):
        changed[token] += params.logit_bias.get(token, 0)
        if token in recent:
            changed[token] *= params.repeat_penalty if changed[token] <= 0 else 1 / params.repeat_penalty
        if counts[token]:
            changed[token] -= params.presence_penalty + counts[token] * params.frequency_penalty
    return changed.astype(np.float32)


penalty = st.one_of(st.just(0.0), st.floats(-2, 2, width=32))
settings_ = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 2.0]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([0, 5]),
    min_p=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 99),
    presence_penalty=penalty,
    frequency_penalty=penalty,
    repeat_penalty=st.one_of(st.just(1.0), st.floats(0.5, 3)),
    repeat_last_n=st.sampled_from([-1, 0, 1, 3, 64]),
    logit_bias=st.dictionaries(st.integers(0, N - 1), st.floats(-100, 100, width=32), max_size=4),
)
tokens = st.lists(st.integers(0, N - 1), max_size=12)


@pytest.mark.slow
@given(settings_, tokens, tokens, st.integers(0, 999))
def test_penalties_equal_the_reference(
    params: SamplingParams, prompt: list[int], generated: list[int], numbers: int
) -> None:
    logits = np.random.default_rng(numbers).normal(0, 4, N).astype(np.float32)
    expected = reference(logits, params, prompt, generated)
    penalties = Penalties(params, prompt)
    for token in generated:
        penalties.add(token)
    penalties.apply(logits)
    assert np.allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
@given(settings_, tokens, st.integers(0, 999))
def test_pick_applies_the_history_before_each_token(params: SamplingParams, prompt: list[int], numbers: int) -> None:
    """The picked token is the reference's best or one of its shortlist; near ties are both right."""
    rows = np.random.default_rng(numbers).normal(0, 3, (8, N)).astype(np.float32)
    sampler, generated = Sampler(params, prompt), list[int]()
    for row in rows:
        expected = reference(row, params, prompt, generated)
        generated.append(sampler.pick(row.copy()))
        if params.temperature == 0:
            assert expected[generated[-1]] >= expected.max() - 1e-4
        else:
            least = expected[shortlist(expected, params)].min()
            assert expected[generated[-1]] >= least - 1e-4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0, 0, 0, 0]),
        ({"presence_penalty": 0.5}, [0, 0, 0, 0]),
        ({"presence_penalty": 1.5}, [0, 1, 2, 0]),
        ({"frequency_penalty": 0.75}, [0, 0, 1, 2]),
        ({"frequency_penalty": -2.0, "logit_bias": {1: 1.5}}, [1, 1, 1, 1]),
        ({"repeat_penalty": 2.0}, [0, 1, 2, 0]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 1}, [0, 1, 0, 1]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 0}, [0, 0, 0, 0]),
        ({"logit_bias": {0: -100.0}}, [1, 1, 1, 1]),
        ({"logit_bias": {3: 100.0}}, [3, 3, 3, 3]),
    ],
)
def test_pick_of_four_greedy_tokens_is_exact(changes: dict[str, float], expected: list[int]) -> None:
    sampler = Sampler(replace(GREEDY, **changes))
    assert [sampler.pick(array(3, 2, 1.75, -1)) for _ in range(4)] == expected


def test_prompt_counts_for_the_repetition_penalty_only() -> None:
    openai = replace(GREEDY, presence_penalty=2.0, frequency_penalty=2.0)
    assert Sampler(openai, [0, 0, 0]).pick(array(3, 2)) == 0
    assert Sampler(replace(GREEDY, repeat_penalty=2.0), [0, 0, 0]).pick(array(3, 2)) == 1


def test_repetition_penalty_sees_the_last_tokens_only() -> None:
    falling = np.array(range(70, 0, -1), np.float32)
    lately = replace(GREEDY, repeat_penalty=20.0)
    assert Sampler(lately, range(65)).pick(falling.copy()) == 0, "64 tokens ago is long ago"
    assert Sampler(lately, range(64)).pick(falling.copy()) == 64
    assert Sampler(replace(lately, repeat_last_n=-1), range(65)).pick(falling.copy()) == 65


def test_penalties_leave_minus_infinity_unchanged() -> None:
    params = SamplingParams(2.0, 1, 0, 0, 7, -2, -2, 0.5, 64, {0: 100.0, 2: 50.0})
    sampler = Sampler(params, [0, 0, 2, 2])
    assert {sampler.pick(array(-np.inf, 1, -np.inf, 1)) for _ in range(50)} <= {1, 3}


@pytest.mark.parametrize("penalty", [5e-324, 1e-40, 1e-9, 1e-3])
@pytest.mark.parametrize("repeat_last_n", [-1, 2])
@pytest.mark.parametrize("params", [GREEDY, replace(GREEDY, temperature=1), SamplingParams(2, 0.9, 3, 0.05)], ids=str)
def test_tiny_repetition_penalty_repeats(params: SamplingParams, penalty: float, repeat_last_n: int) -> None:
    """Positive logits of repeated tokens become huge, and keep their order."""
    sampler = Sampler(replace(params, repeat_penalty=penalty, repeat_last_n=repeat_last_n), [2, 3])
    assert [sampler.pick(array(30, 20, 8, 12, -1)) for _ in range(3)] == [3] * 3


def test_pick_without_penalties_leaves_the_logits_unchanged() -> None:
    logits = array(3, 2, 1, 0)
    sampler = Sampler(replace(GREEDY, repeat_penalty=1.0, repeat_last_n=-1, logit_bias={}), [0, 1])
    assert [sampler.pick(logits) for _ in range(3)] == [0, 0, 0]
    assert logits.tolist() == [3, 2, 1, 0]
