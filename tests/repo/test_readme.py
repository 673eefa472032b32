"""README's length, and the claims: each test that tests/claims.md names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 180
NAMED = sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", (ROOT / "tests" / "claims.md").read_text())))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_claim_names_a_test_that_exists(file: str, name: str) -> None:
    assert f"def {name}(" in "".join(path.read_text() for path in (ROOT / "tests").rglob(f"{file}.py"))


def test_claims_name_tests() -> None:
    assert NAMED


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES
