"""Budgets of reasoning by `reasoning.effort`. Pure.

An edge machine writes 5 to 20 tokens a second, and a context of 4,096 tokens has room for prompt, reasoning and answer
together: OpenAI's models spend more than that on an effort. The template passes the effort to the model, which may
ignore it; the budget is enforced.
"""

from collections.abc import Mapping

TOKENS: Mapping[str, int] = {"none": 0, "minimal": 128, "low": 512, "medium": 2048}
"""Tokens of reasoning; higher efforts have no budget."""


def reasoning_budget(effort: str | None, max_tokens: int) -> int | None:
    """Return the tokens after which reasoning is closed; None without an effort or with a high one.

    `max_tokens`: tokens that reasoning and answer may have together; a budget is at most half of them.
    """
    tokens = TOKENS.get(effort or "")
    return None if tokens is None else min(tokens, max_tokens // 2)
