"""The tree is as `ruff` and `mypy` want it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = ["ruff check", "ruff format --check", "mypy"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_tree_is_tidy(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
