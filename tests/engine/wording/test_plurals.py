"""Numbers with their nouns."""

import pytest

from engine.wording import counted


@pytest.mark.parametrize(
    ("n", "noun", "plural", "expected"),
    [
        (0, "slot", "", "0 slots"),
        (1, "slot", "", "1 slot"),
        (2, "slot", "", "2 slots"),
        (1, "process", "processes", "1 process"),
        (2, "process", "processes", "2 processes"),
    ],
)
def test_counted_has_the_noun_of_its_number(n: int, noun: str, plural: str, expected: str) -> None:
    assert counted(n, noun, plural) == expected
