"""Depth of JSON texts: exact for valid ones, and found without recursion."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.http import json_depth
from server.http.json_depth import is_deeper

VALUES = st.recursive(
    st.none() | st.text(st.sampled_from('[]{}"\\a\u20ac')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('[{"\\')), inner),
)


def depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@pytest.mark.slow
@given(VALUES, st.integers(2, 9), st.booleans())
def test_depth_is_that_of_the_decoded_value(value: Any, chunk: int, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_depth, "CHUNK_BYTES", chunk)
        assert [is_deeper(text, most) for most in range(6)] == [depth(value) > most for most in range(6)]


TEXTS = [
    (b"[" * 64 + b"]" * 64, False),
    (b"[" * 65 + b"]" * 65, True),
    (b'{"a":' * 65 + b"0" + b"}" * 65, True),
    (b"[{" * 500_000, True),
    (b"]" * 1_000_000 + b"[" * 64, False),
    (b"[]" * 500_000, False),
    (b'"' + b"[" * 1_000_000, False),
    pytest.param(b'"' + b'\\"[' * 300_000 + b'"', False, marks=pytest.mark.slow),
    (b'"\\', False),
    (b'"' + b"\\" * 999_999, False),
    (b'"' + b"\\" * 100_000 + b'"' + b"[" * 65, True),
    (b'""' * 300_000 + b"[" * 65, True),
    (b"", False),
]


@pytest.mark.parametrize(("text", "deeper"), TEXTS, ids=range(len(TEXTS)))
def test_text_of_any_form_is_measured(text: bytes, deeper: bool) -> None:
    assert is_deeper(text, 64) is deeper
