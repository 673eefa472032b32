"""Modules that a command loads before it begins its work."""

import subprocess
import sys

SLOW = {"trio", "hypercorn", "h11", "sqlite3", "server.api", "server.store"}
"""Modules that `serve` imports while llama.cpp reads the model file (0.1 s of Python)."""


def test_serve_begins_to_load_the_model_before_it_imports_the_server() -> None:
    code = "import sys, server.cli.main, server.cli.serve; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert SLOW & set(loaded) == set()
