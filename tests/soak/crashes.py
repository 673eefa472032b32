"""Promise: after kill -9 under load the server is ready within the time of a start + 1 s, and has its responses."""

import json
import sys
from pathlib import Path
from statistics import median

import trio

from tests.soak.bounds import Bounds
from tests.support import model_files
from tests.support.processes import ROOT

ROUND_SECONDS = 300.0
MAX_EXTRA_SECONDS = 1.0


async def run(bounds: Bounds, folder: Path) -> str:
    """Run `bench/recovery.py` that many times; return its figures. Raises AssertionError."""
    model = model_files.bpe(folder / "tiny.gguf", context=1024)
    command = [sys.executable, str(ROOT / "bench" / "recovery.py"), "--model", str(model), "--rounds", "1"]
    rounds = []
    for _ in bounds.numbers():
        with trio.fail_after(ROUND_SECONDS):
            done = await trio.run_process(command, cwd=ROOT, capture_stdout=True, check=False)
        assert done.stdout, "the measurement failed"
        rounds.append(json.loads(done.stdout.splitlines()[-1]))
    start, again = (median(each[name] for each in rounds) for name in ("start", "after_crash"))
    stored, expected = (sum(each[name] for each in rounds) for name in ("stored", "expected"))
    figures = (
        f"{len(rounds)} crashes, ready after {again:.2f} s, without a crash after {start:.2f} s, "
        f"{stored} of {expected} responses found"
    )
    assert again < start + MAX_EXTRA_SECONDS, figures
    assert stored == expected, figures
    return figures
