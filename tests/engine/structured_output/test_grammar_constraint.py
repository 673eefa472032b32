"""The set of allowed tokens equals that of the mask's bits."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.structured_output.grammar_constraint import WORD, TokenSet


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.sets(st.integers(0, 199)))
def test_token_set_equals_list_of_its_bits(flags: list[bool], dropped: set[int]) -> None:
    padded = flags + [False] * (-len(flags) % WORD)
    bits = np.packbits(padded, bitorder="little").view(np.int32)
    except_ = [token for token in dropped if token < len(padded)]
    ids = [token for token, flag in enumerate(padded) if flag and token not in except_]
    tokens = TokenSet(bits, except_)
    assert [tokens[index] for index in range(len(tokens))] == ids
    assert [token for token in range(len(padded)) if token in tokens] == ids
    assert tokens.last == (ids[-1] if ids else None)
    assert bits.tobytes() == np.packbits(padded, bitorder="little").tobytes()
    if ids:
        assert Random(5).choice(tokens) == Random(5).choice(ids)


def test_index_outside_of_token_set_raises_index_error() -> None:
    tokens = TokenSet(np.array([5], np.int32))
    for index in (-1, 2):
        with pytest.raises(IndexError):
            tokens[index]
