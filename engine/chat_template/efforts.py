"""How much a model is to think, as templates are told it. Pure."""

from collections.abc import Sequence
from typing import Any

EFFORT_WORDS = ("low", "medium", "high")
"""Words that templates with `reasoning_effort` know. OpenAI's API has more."""

NO_THINKING = ("none", "minimal")
"""Efforts that are no thinking at all, where that can be told."""


def effort_told(effort: str | None, words: Sequence[str] = EFFORT_WORDS) -> dict[str, Any]:
    """The variables by which one family or another is told how much to think; none where nobody said anything.

    `words`: those that the template takes; in place of another one it gets the nearest, rather a lower one.
    """
    if effort is None:
        return {}
    thinks = effort not in NO_THINKING
    word = effort if effort in EFFORT_WORDS else "high" if thinks else "low"
    place = EFFORT_WORDS.index(word)
    word = min(words, key=lambda each: (abs(EFFORT_WORDS.index(each) - place), EFFORT_WORDS.index(each)))
    return {"enable_thinking": thinks, "thinking": thinks, "reasoning_effort": word}
