"""What the README says is proved by a test is: that test is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", (ROOT / "README.md").read_text())))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_is_there(file: str, name: str) -> None:
    assert f"def {name}(" in "".join(path.read_text() for path in (ROOT / "tests").rglob(f"{file}.py"))


def test_there_are_some() -> None:
    assert NAMED
