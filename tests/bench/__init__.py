"""Tests of the bench, which is scripts, not a package: `python bench/run.py` has this path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
