"""Tables whose rows repeat a law: the fast tests run some of the rows, all tests run every row."""

from collections.abc import Mapping
from typing import Any

import pytest


def thinned(rows: Mapping[str, object], every: int = 3) -> list[Any]:
    """Return the rows as parameters; all but every third one, or as `every` says, are slow. Tuples are several values.

    A table of one kind of row after the other has some of each kind among the fast ones.
    """
    return [
        pytest.param(*(row if type(row) is tuple else (row,)), id=name, marks=[pytest.mark.slow] * (index % every > 0))
        for index, (name, row) in enumerate(rows.items())
    ]
