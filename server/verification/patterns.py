"""Regular expressions that a client sends: which ones Python's `re` matches in bounded time. Pure."""

import re
from functools import lru_cache

MAX_UNBOUNDED = 3
"""Unbounded repetitions of a pattern at most: each multiplies the time by the length of the text."""
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[:=!]|\(|\)|[*+?]|\{\d*(?:,(\d*))?\}|.", re.DOTALL)


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str] | None:
    """Return the pattern; None if it is not valid, or might take exponential time.

    A group that repeats and contains a repetition or alternatives may match one text in very many ways.
    """
    if not _is_linear(pattern):
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _is_linear(pattern: str) -> bool:
    ambiguous = [False]
    """For each open group: True if it contains a repetition or alternatives."""
    unbounded, closed = 0, False
    """`closed`: True if the part before was a group that contains such."""
    for part in _PARTS.finditer(pattern):
        text = part[0]
        if text.startswith("(") and text[0] != "\\":
            ambiguous.append(False)
            closed = False
        elif text == ")":
            closed = ambiguous.pop() if len(ambiguous) > 1 else False
            ambiguous[-1] |= closed
        elif text in "*+" or (text.startswith("{") and len(text) > 1):
            if closed:
                return False
            unbounded += text in "*+" or text.endswith(",}")
            ambiguous[-1] = True
        elif text == "|":
            ambiguous[-1] = True
            closed = False
        elif text != "?":
            closed = False
    return unbounded <= MAX_UNBOUNDED
