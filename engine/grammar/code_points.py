"""Ranges of code points: sets of characters. Pure."""

from collections.abc import Iterable
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
"""First and last code point."""

LAST = 0x10FFFF
"""The last code point."""


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return the same characters as ranges in order, without overlaps."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def common(ranges: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """Return the ranges of the characters in both, in order."""
    others = tuple(others)
    return sorted((max(a, c), min(b, d)) for a, b in ranges for c, d in others if a <= d and c <= b)


def complement(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return the ranges of all other characters; the given ones are in order."""
    found, begin = [], 0
    for first, last in ranges:
        if begin < first:
            found.append((begin, first - 1))
        begin = last + 1
    return (*found, (begin, LAST)) if begin <= LAST else tuple(found)
