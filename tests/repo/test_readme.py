"""README's length, and the claims: each test that tests/claims.md names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_LINES = 180
NAMED = sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", (ROOT / "tests" / "claims.md").read_text())))


def test_claims_name_tests_that_exist() -> None:
    assert NAMED
    paths = list((ROOT / "tests").rglob("test_*.py"))
    sources = {file: "".join(path.read_text() for path in paths if path.stem == file) for file, _ in NAMED}
    assert [(file, name) for file, name in NAMED if f"def {name}(" not in sources[file]] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES
