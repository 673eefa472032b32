"""The measurement of a start after a crash."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import model_files
from tests.support.processes import ROOT

pytestmark = pytest.mark.slow


def test_recovery_finds_all_stored_responses(tmp_path: Path) -> None:
    model = model_files.bpe(tmp_path / "tiny.gguf", context=1024)
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "recovery.py", "--model", str(model), "--rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures.keys() == {"start", "after_crash", "stored", "expected"}
    assert figures["stored"] == figures["expected"] == 3
