"""Token positions of the breakpoints that a request sets in its texts (`prompt_cache_breakpoint`). Pure."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from server.prompt.items import ItemText

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
    positions = {
        bisect_right(ends, at + _n_bytes(item.text, characters))
        for item, at in _rendered_items(items, rendered)
        for characters in item.breakpoints
    }
    return tuple(sorted(positions - {0}))[-MAX_BREAKPOINTS:]


def _rendered_items(items: Sequence[ItemText], rendered: bytes) -> Iterator[tuple[ItemText, int]]:
    """Yield the items whose texts are in the prompt as they are, without the space around them, and their places."""
    end = 0
    for item in items:
        text = item.text.strip().encode()
        at = rendered.find(text, end) if text else -1
        if at >= 0:
            yield item, at
            end = at + len(text)


def _n_bytes(text: str, characters: int) -> int:
    """Return the bytes of the first characters of a text, without the space around it."""
    lead = len(text) - len(text.lstrip())
    return len(text.strip()[: max(characters - lead, 0)].encode())
