"""Many short texts in one object."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizer.packed_bytes import PackedBytes


@given(st.lists(st.binary(max_size=5), max_size=20))
def test_packed_bytes_equal_the_list(texts: list[bytes]) -> None:
    packed = PackedBytes(texts)
    assert (len(packed), list(packed)) == (len(texts), texts)
    assert packed.longest == len(max(texts, key=len, default=b""))
    assert [packed[index] for index in range(len(texts))] == texts
    for beyond in (-1, len(texts)):
        with pytest.raises(IndexError):
            packed[beyond]
