"""Template variables for the reasoning effort. Pure."""

from collections.abc import Sequence
from typing import Any

EFFORT_WORDS = ("low", "medium", "high")
"""Values of `reasoning_effort` that templates know. OpenAI's API has more."""

NO_THINKING = ("none", "minimal")
"""Efforts that turn reasoning off if the template supports it."""


def effort_variables(effort: str | None, words: Sequence[str] = EFFORT_WORDS) -> dict[str, Any]:
    """Return the variables of all families for an effort; none without an effort.

    `words` are the values that the template accepts. Another effort becomes the nearest of them, the lower one if two
    are equally near.
    """
    if effort is None:
        return {}
    thinks = effort not in NO_THINKING
    word = effort if effort in EFFORT_WORDS else "high" if thinks else "low"
    place = EFFORT_WORDS.index(word)
    word = min(words, key=lambda each: (abs(EFFORT_WORDS.index(each) - place), EFFORT_WORDS.index(each)))
    return {"enable_thinking": thinks, "thinking": thinks, "reasoning_effort": word}
