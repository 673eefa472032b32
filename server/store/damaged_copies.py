"""Copies of damaged databases: renamed beside the new one, for a person to look at, and few of them."""

import logging
import os
import re
from contextlib import suppress
from pathlib import Path

MAX_COPIES = 3
"""Maximum number of copies; a failing disk would fill up with more."""
SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Suffixes of a database's files. SQLite would apply files that are left behind to the next database."""

log = logging.getLogger("responsed.store")


def put_aside(path: Path) -> None:
    """Rename a damaged database and its side files; delete the oldest copies beyond the limit."""
    numbers = _numbers(path)
    number = numbers[-1] + 1 if numbers else 0
    _move(path, copy := _copy(path, number))
    for old in [*numbers, number][:-MAX_COPIES]:
        for suffix in SUFFIXES:
            Path(f"{_copy(path, old)}{suffix}").unlink(missing_ok=True)
    log.warning("%s is damaged; renamed it to %s and created a new one", path, copy)


def _move(path: Path, copy: Path) -> None:
    for suffix in SUFFIXES:
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{copy}{suffix}")


def _copy(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged{number or ''}")


def _numbers(path: Path) -> list[int]:
    """Return the numbers of the copies, the oldest first."""
    pattern = re.compile(rf"{re.escape(path.name)}\.damaged([1-9][0-9]*)?")
    matches = map(pattern.fullmatch, os.listdir(path.parent))
    return sorted(int(match[1] or 0) for match in matches if match)
