"""Names of classes: each stands for one thing in the whole tree."""

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLASS = re.compile(r"^ *class (\w+)", re.MULTILINE)


def test_class_name_occurs_once() -> None:
    places = defaultdict(list)
    for folder in ("engine", "server", "bench", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in CLASS.findall(path.read_text()):
                places[name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
