"""Token positions of the breakpoints that a request sets in its texts (`prompt_cache_breakpoint`). Pure."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from server.prompt.item_texts import ItemText

MAX_BREAKPOINTS = 4
"""Number of breakpoints that a request can set, the latest ones; as at OpenAI."""


def token_positions(
    tokens: Sequence[int], items: Sequence[ItemText], bytes_of: Callable[[int], bytes]
) -> tuple[int, ...]:
    """Return the number of tokens before each of the last breakpoints, in ascending order.

    A position is rounded down to a whole token. Texts that the template writes in another form have none.
    """
    if not any(item.breakpoints for item in items):
        return ()
    pieces = [bytes_of(token) or b"\0" for token in tokens]
    rendered, ends = b"".join(pieces), list(accumulate(map(len, pieces)))
    found: list[int] = []
    end = 0
    for item in items:
        text = item.text.strip()
        at = rendered.find(text.encode(), end) if text else -1
        if at < 0:
            continue
        end = at + len(text.encode())
        lead = len(item.text) - len(item.text.lstrip())
        found += [
            bisect_right(ends, at + len(text[: max(characters - lead, 0)].encode())) for characters in item.breakpoints
        ]
    return tuple(sorted({position for position in found if position}))[-MAX_BREAKPOINTS:]
