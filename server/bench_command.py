"""The command `bench`. It imports nothing of the server: the bench measures on the machine that serves."""

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Run the bench: scripts in `server/bench` of a wheel, and in `bench` of a checkout."""
    here = Path(__file__).parent
    folder = here / "bench" if (here / "bench").is_dir() else here.parent / "bench"
    sys.argv[:2] = ["responsed bench"]
    sys.path.insert(0, str(folder))
    status: int = importlib.import_module("run").main()
    return status
