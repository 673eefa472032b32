"""Objects that arrive in parts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.stream.decoders.partial_json import PartialObject

TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(TEXTS | st.integers() | st.booleans() | st.none(), lambda each: st.lists(each), max_leaves=9)


def read(text: str) -> Any:
    partial = PartialObject()
    partial.feed(text)
    return partial.decode(dict[str, Any])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("{", {}),
        ('{"com', None),
        ('{"commands"', None),
        ('{"commands": [', {"commands": []}),
        ('{"commands": ["l', {"commands": ["l"]}),
        ('{"commands": ["ls \\', {"commands": ["ls "]}),
        ('{"commands": ["ls \\u00e', {"commands": ["ls "]}),
        ('{"commands": ["ls \\u00e9', {"commands": ["ls é"]}),
        ('{"commands": ["\\ud83d', None),
        ('{"commands": ["\\ud83d\\ude00', {"commands": ["😀"]}),
        ('{"commands": ["ls", ', None),
        ('{"commands": ["ls"]', {"commands": ["ls"]}),
        ('{"commands": ["ls"], "timeout_ms": 12', {"commands": ["ls"], "timeout_ms": 12}),
        ('{"commands": ["{[\\"]}"]}', {"commands": ['{["]}']}),
        ("]]", None),
    ],
)
def test_object_that_was_cut_has_its_certain_members(text: str, expected: Any) -> None:
    assert read(text) == expected


@pytest.mark.slow
@given(st.dictionaries(TEXTS, VALUES), st.booleans(), st.lists(st.integers(0, 200), max_size=5))
def test_object_in_any_parts_is_read_whole(value: dict[str, Any], ascii_: bool, cuts: list[int]) -> None:
    text, partial, begin = json.dumps(value, ensure_ascii=ascii_), PartialObject(), 0
    for cut in [*sorted(cuts), len(text)]:
        partial.feed(text[begin:cut])
        begin = max(begin, cut)
    assert partial.decode(dict[str, Any]) == value


@given(st.lists(TEXTS), st.integers(0, 500))
def test_list_that_was_cut_is_a_beginning_of_the_whole(texts: list[str], cut: int) -> None:
    found = read(json.dumps({"commands": texts})[:cut])
    known = (found or {}).get("commands") or []
    assert known[:-1] == texts[: len(known)][:-1]
    assert not known or texts[len(known) - 1].startswith(known[-1])
