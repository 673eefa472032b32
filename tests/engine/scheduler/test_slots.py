"""The common prefix of two sequences."""

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduler.slots import common_prefix_length

TOKENS = st.lists(st.integers(0, 2), max_size=40)


@given(TOKENS, TOKENS)
def test_common_prefix_length_is_exact(cached: list[int], prompt: list[int]) -> None:
    pairs = list(zip(cached, prompt[:-1], strict=False))
    naive = next((i for i, (left, right) in enumerate(pairs) if left != right), len(pairs))
    assert common_prefix_length(cached, prompt) == naive


def test_common_prefix_length_excludes_the_last_prompt_token() -> None:
    assert common_prefix_length([1, 2, 3], [1, 2, 3]) == 2
