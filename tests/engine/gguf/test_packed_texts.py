"""Texts of a list in a file: a sequence that decodes what is read of it."""

import struct
from array import array
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from engine.gguf.packed_texts import PackedTexts


def pack(texts: list[bytes]) -> PackedTexts:
    items = [struct.pack("<Q", len(text)) + text for text in texts]
    return PackedTexts(b"".join(items), array("Q", accumulate(map(len, items), initial=0)))


@given(st.lists(st.binary(max_size=8), max_size=12), st.slices(12))
def test_packed_texts_equal_a_list_of_texts(texts: list[bytes], some: slice) -> None:
    expected = [text.decode("utf-8", "surrogateescape") for text in texts]
    packed = pack(texts)

    assert list(packed) == expected
    assert len(packed) == len(expected)
    assert [packed[index] for index in range(-len(texts), len(texts))] == expected * 2
    assert packed[some] == expected[some]
    assert [text.encode(errors="surrogateescape") for text in packed] == texts
