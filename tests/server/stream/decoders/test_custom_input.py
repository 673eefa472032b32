"""Decoding of a custom tool's input while it streams, with cuts anywhere."""

import itertools
import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.stream.decoders.custom_input import CustomInputDecoder

SPACE = st.text(" \t\n\r", max_size=3)
TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\/\n\tué😀')))
CUTS = st.lists(st.integers(0, 400))


@st.composite
def wrappings(draw: st.DrawFn) -> tuple[str, str]:
    """Return a text and one of its JSON encodings."""
    text = draw(TEXTS)
    written = json.dumps(text, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        written = re.sub(r"\\u[0-9a-f]{4}", lambda escape: "\\u" + escape[0][2:].upper(), written)
    spaces = [draw(SPACE) for _ in range(6)]
    return text, "{}{{{}{}{}:{}{}{}}}{}".format(*spaces[:2], '"input"', *spaces[2:4], written, *spaces[4:])


def decoded(written: str, cuts: list[int]) -> Iterator[str]:
    """Return the emitted parts."""
    unwrapping = CustomInputDecoder()
    places = [0, *sorted(cut for cut in cuts if cut < len(written)), len(written)]
    for start, end in itertools.pairwise(places):
        yield unwrapping.feed(written[start:end])
    yield unwrapping.finish()


@given(wrappings(), CUTS)
def test_custom_input_with_cuts_anywhere_is_the_json_text(wrapping: tuple[str, str], cuts: list[int]) -> None:
    text, written = wrapping
    assert json.loads(written) == {"input": text}
    pieces = list(decoded(written, cuts))
    assert "".join(pieces) == text
    assert pieces[-1] == ""
    "\n".join(pieces).encode()  # fails for half a surrogate pair


@given(wrappings(), st.integers(0, 400))
def test_custom_input_emits_each_character_at_once(wrapping: tuple[str, str], end: int) -> None:
    """A text that ends early is emitted up to its end."""
    text, written = wrapping
    came = "".join(decoded(written[:end], list(range(end))))
    assert text.startswith(came)
    begun = written[:end].partition(":")[2].lstrip()
    escapes = re.sub(r"\\(?:u[0-9a-fA-F]{0,3})?\Z", "", re.sub(r"\\(?:[^u]|u[0-9a-fA-F]{4})", "x", begun[1:]))
    assert len(came.encode("utf-16-le")) // 2 >= len(escapes.partition('"')[0]) - 1


@given(st.one_of(st.text('{}":inputud83DC0\\n \n😀'), TEXTS.map('{{"input": "{}'.format)), CUTS)
def test_custom_input_of_any_text_is_independent_of_the_cuts(written: str, cuts: list[int]) -> None:
    whole = "".join(decoded(written, []))
    assert "".join(decoded(written, cuts)) == whole
    whole.encode()


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("", ""),
        ("{}", ""),
        ('{ "inp', ""),
        ('{"input": "', ""),
        ('{"input": "a\\', "a"),
        ('{"input": "a\\u00e', "a"),
        ('{"input": "a\\ud83d', "a"),
        ('{"input": "a\\ud83d\\ude0', "a"),
        ('{"input": "a\\ud83d"}', "a\ufffd"),
        ('{"input": "\\ude00\\ud83d\\ud83d\\ude00"}', "\ufffd\ufffd😀"),
        ('{"input": "\\\\"}', "\\"),
        ('{"input": "a\nb\\q\\u12x"}', "a\nb\\q\\u12x"),
        ('{"input": "a", "more": 1}', "a"),
        ('{"more": 1, "input": "a"}', "a"),
        ('{"\\u0069nput": "a"}', "a"),
        ('{"input": 3}', '{"input": 3}'),
        ('{"patch": "a"}', '{"patch": "a"}'),
        ("*** Begin Patch", "*** Begin Patch"),
        ('"a"', '"a"'),
        ("[" * 9999, "[" * 9999),
    ],
)
def test_custom_input_of_another_form_is_emitted_at_the_end(written: str, text: str) -> None:
    assert "".join(decoded(written, list(range(len(written))))) == text
