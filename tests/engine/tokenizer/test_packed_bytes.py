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


WORDS = st.text("ab").map(str.encode)


@given(st.lists(WORDS), WORDS.filter(bool))
def test_containing_yields_each_text_that_contains_the_bytes(texts: list[bytes], data: bytes) -> None:
    assert list(PackedBytes(texts).containing(data)) == [index for index, text in enumerate(texts) if data in text]
