"""Ends of turns in prompts."""

import pytest

from server.prompt.checkpoints import turn_ends

START, END, THINK = 1, 2, 3
CONTROL = frozenset({START, END, THINK})


def turn(n: int) -> list[int]:
    """Return a turn of ChatML with `n` tokens of text."""
    return [START, 50, 51, *[60] * n, END, 51]


GENERATION = [START, 50, 51]
SYSTEM = turn(30)
"""Its text ends at position 33, and it has 35 tokens."""


@pytest.mark.parametrize(
    ("prompt", "ends"),
    [
        ([], ()),
        ([60] * 100, ()),
        ([*turn(20), *GENERATION], (23,)),
        ([*turn(5), *GENERATION], ()),
        ([*SYSTEM, *turn(20), *GENERATION], (33, 58)),
        ([*SYSTEM, *turn(20), *GENERATION, THINK, 51, THINK, 51], (33, 58)),
        ([*SYSTEM, *turn(3), *turn(3), *turn(3), *GENERATION], (33, 49)),
        ([*SYSTEM, *turn(20) * 5, *GENERATION], (33, 133, 158)),
        ([END, *turn(20) * 2], (24, 49)),
    ],
)
def test_turn_ends_are_before_the_markers_of_the_first_and_last_turns(prompt: list[int], ends: tuple[int, ...]) -> None:
    assert turn_ends(prompt, CONTROL) == ends
