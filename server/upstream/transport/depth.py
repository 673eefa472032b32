"""Bound of the depth of an upstream's JSON, applied before a decoder descends into it. Pure."""

from server.http import is_deeper

MAX_DEPTH = 64
"""Levels of arrays and objects. Answers have fewer than ten."""


def shallow(data: bytes) -> bytes:
    """Return JSON that is not nested too deeply. Raises ValueError.

    The depth at which msgspec stops depends on Python: a thousand levels up to 3.13, 27,000 with 3.14.
    """
    if is_deeper(data, MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return data
