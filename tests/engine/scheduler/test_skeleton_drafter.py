"""Drafts of the tokens between forced ones."""

from collections.abc import Sequence

import pytest

from engine.scheduler.skeleton_drafter import FORCED, SkeletonDrafter

OPEN, BREAK, QUOTE, COLON, COMMA, TRUE, END = range(1, 8)
KEY = [QUOTE, FORCED, COLON]


def after(tokens: Sequence[int]) -> list[int]:
    """Return the draft after an answer's tokens."""
    drafter = SkeletonDrafter()
    for token in tokens:
        drafter.add(token)
    return list(drafter.draft())


@pytest.mark.parametrize(
    ("tokens", "draft"),
    [
        ([], []),
        ([OPEN, BREAK, QUOTE, FORCED], []),
        # A key, then an enum's value whose first token differs each time
        ([OPEN, BREAK, *KEY, QUOTE, 50, FORCED, COMMA, BREAK, QUOTE, FORCED], [COLON, QUOTE, 50]),
        (
            [OPEN, BREAK, *KEY, QUOTE, 50, FORCED, COMMA, BREAK, *KEY, QUOTE, 51, FORCED],
            [COMMA, BREAK, QUOTE],
        ),
        # Values differ, so that the draft ends before the third one
        (
            [OPEN, BREAK, *KEY, QUOTE, 50, FORCED, COMMA, BREAK, *KEY, QUOTE, 51, FORCED, COMMA, BREAK, QUOTE, FORCED],
            [COLON, QUOTE],
        ),
        # The end of a value that is not forced
        ([OPEN, BREAK, *KEY, TRUE, COMMA, BREAK, *KEY, TRUE], [COMMA, BREAK, QUOTE]),
        ([OPEN, BREAK, *KEY, TRUE, COMMA, BREAK, *KEY, TRUE, END], []),
        ([1, 2, 3, 4, 5, 6, 7], []),
    ],
)
def test_draft_returns_what_followed_a_similar_place_up_to_forced_tokens(tokens: list[int], draft: list[int]) -> None:
    assert after(tokens) == draft


def test_draft_of_an_endless_repetition_is_bounded() -> None:
    assert after([1, 2, 3] * 4) == [1, 2, 3, 1, 2, 3, 1, 2]
