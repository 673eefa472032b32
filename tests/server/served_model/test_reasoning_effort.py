"""Budgets of reasoning tokens."""

import pytest

from server.served_model.reasoning_effort import TOKENS, reasoning_budget


@pytest.mark.parametrize(
    ("effort", "max_tokens", "tokens"),
    [
        (None, 4000, None),
        ("none", 4000, 0),
        ("minimal", 4000, 128),
        ("low", 4000, 512),
        ("medium", 8000, 2048),
        ("medium", 3000, 1500),
        ("low", 100, 50),
        ("low", 1, 0),
        ("high", 4000, None),
        ("max", 4000, None),
    ],
)
def test_reasoning_budget_is_half_of_the_remaining_tokens_at_most(
    effort: str | None, max_tokens: int, tokens: int | None
) -> None:
    assert reasoning_budget(effort, max_tokens) == tokens


def test_reasoning_budget_grows_with_effort() -> None:
    assert list(TOKENS) == ["none", "minimal", "low", "medium"]
    assert sorted(TOKENS.values()) == list(TOKENS.values())
