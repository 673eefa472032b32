"""Regular expressions that a client sends: which ones Python's `re` matches in bounded time. Pure."""

import re
from functools import lru_cache

MAX_UNBOUNDED = 3
"""Maximum unbounded repetitions of a pattern: each multiplies the time by the length of the text."""
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
    parts = [part[0] for part in _PARTS.finditer(pattern)]
    n_unbounded = sum(text in "*+" or (_is_count(text) and text.endswith(",}")) for text in parts)
    return n_unbounded <= MAX_UNBOUNDED and not _repeats_ambiguous_group(parts)


def _is_count(part: str) -> bool:
    return part.startswith("{") and len(part) > 1


def _is_repetition(part: str) -> bool:
    return part in "*+" or _is_count(part)


def _repeats_ambiguous_group(parts: list[str]) -> bool:
    """True if a group is repeated that contains a repetition or alternatives."""
    ambiguous = [False]
    """For each open group: True if it contains a repetition or alternatives."""
    closed = False
    """True if the part before was a group that contains such."""
    for text in parts:
        if text == "?":  # the group before may be absent, or its repetition is lazy
            continue
        is_repetition = _is_repetition(text)
        if is_repetition and closed:
            return True
        if text.startswith("("):
            ambiguous.append(False)
        closed = text == ")" and len(ambiguous) > 1 and ambiguous.pop()
        ambiguous[-1] |= closed or is_repetition or text == "|"
    return False
