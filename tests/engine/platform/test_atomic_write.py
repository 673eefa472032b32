"""Files that are complete or absent."""

import stat
from contextlib import suppress
from pathlib import Path

from engine.platform.atomic_write import atomic_write


def test_atomic_write_replaces_a_file_with_the_permissions_asked_for(tmp_path: Path) -> None:
    path, draft = tmp_path / "file", tmp_path / ".draft"
    path.write_bytes(b"old")
    with atomic_write(path, draft, mode=0o600) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode), draft.exists()) == (b"new", 0o600, False)


def test_atomic_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path, draft = tmp_path / "file", tmp_path / ".draft"
    path.write_bytes(b"old")
    with suppress(ValueError), atomic_write(path, draft) as file:
        file.write(b"half")
        raise ValueError
    assert (path.read_bytes(), draft.exists()) == (b"old", False)
