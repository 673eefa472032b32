"""Beginnings of strings with a pattern: refused at the first character after which no text matches."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.verification import JsonCheck, Mismatch, VerifiedSchema
from server.verification.prefixes import prefixes

ALPHABET = "ab\n"
ENDINGS = ["".join(each) for size in range(6) for each in product(ALPHABET, repeat=size)]
ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\s", r"\W", "\n", "(?:a|ba)", "a?", "b*", "a+?", "[ab]{2}"])
PATTERNS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "^", r"\A", "(?:^|a)", "(^)"]),
    st.lists(ATOMS, max_size=3).map("".join),
    st.sampled_from(["", "$", r"\Z", "$\n", "(?:$|b)"]),
)


def refused(pattern: str, text: str) -> int | None:
    """Return the place of the first character that is refused."""
    if (automaton := prefixes(pattern)) is None:
        return None
    states = automaton.start
    for place, character in enumerate(text):
        states = automaton.step(states, character)
        if not states:
            return place
    return None


@pytest.mark.slow
@given(PATTERNS | st.tuples(PATTERNS, PATTERNS).map("|".join), st.text(ALPHABET, max_size=4))
def test_beginning_is_refused_if_no_text_completes_it(pattern: str, text: str) -> None:
    regex, place = re.compile(pattern), refused(pattern, text)
    if "^" not in pattern.replace("[^", "") and r"\A" not in pattern:
        assert place is None, "a match may begin later"
    for size in range(1, len(text) + 1):
        completed = any(regex.search(text[:size] + ending) for ending in ENDINGS)
        assert completed == (place is None or size <= place)


@pytest.mark.parametrize(
    ("pattern", "text", "place"),
    [
        (r"^\d{4}-\d{2}$", "2024-1x", 6),
        (r"^(foo|bar)+$", "foobax", 5),
        ("^[a-z]{2,3}$", "abcd", 3),
        ("^ü[é-ö]$", "üx", 1),
        ("^a", "ab", None),
        ("^x(?=y)", "z", None),  # more than an automaton
        (r"^x\b", "z", None),
        ("(?i)^x", "z", None),
        ("^.{0,5000}$", "\n", None),  # a large one
    ],
)
def test_first_wrong_character_is_found(pattern: str, text: str, place: int | None) -> None:
    assert refused(pattern, text) == place


@pytest.mark.parametrize("size", range(1, 12))
def test_string_that_breaks_its_pattern_ends_in_its_middle(size: int) -> None:
    check, text = JsonCheck(VerifiedSchema({"type": "string", "pattern": "^a+$"})), r'"a\u0061ab'
    *before, last = [text[start : start + size] for start in range(0, len(text), size)]
    for each in before:
        check.feed(each)
    with pytest.raises(Mismatch, match="no text that begins so matches its pattern"):
        check.feed(last)
