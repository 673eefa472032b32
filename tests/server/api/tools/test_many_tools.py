"""Reading tools takes time that is linear in the body, however a client repeats them."""

import time
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.tools import toolbox
from server.tools.additional_tools import AdditionalTools

pytestmark = pytest.mark.slow

N = 8000
FUNCTIONS = [{"type": "function", "name": f"f{n}"} for n in range(N)]
SPACE = {"type": "namespace", "name": "space", "tools": FUNCTIONS}
SKIPPED = {"type": "namespace", "name": "skipped", "tools": [{"type": f"unknown {n}"} for n in range(10 * N)]}
DEFERRED = {"type": "namespace", "name": "deferred", "tools": [each | {"defer_loading": True} for each in FUNCTIONS]}
MAX_SECONDS = 10
"""Each case takes 0.5 s, and would take 20 s or more if each tool were compared with all others."""


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def allowed(*tools: dict[str, Any]) -> Raw:
    return raw({"type": "allowed_tools", "mode": "auto", "tools": tools})


@pytest.mark.parametrize(
    ("tools", "choice", "offers", "n_allowed"),
    [
        ([], raw("auto"), [[SPACE], [SPACE]], N),
        ([], raw("auto"), [[each] for each in FUNCTIONS] * 2, N),
        ([SPACE], allowed(*FUNCTIONS), [], N),
        ([SPACE], allowed(*[FUNCTIONS[0]] * N), [], 1),
        ([SPACE], allowed(*[{"type": "namespace", "name": "space"}] * N), [], N),
        ([SPACE, *FUNCTIONS[1:]], allowed(*FUNCTIONS), [], 2 * N - 1),
        ([SKIPPED, DEFERRED], raw("auto"), [], N),
    ],
    ids=[
        "offered again",
        "offered again one by one",
        "allowed",
        "one allowed",
        "space allowed",
        "names used twice",
        "skipped",
    ],
)
def test_many_tools_are_read_in_linear_time(
    tools: list[Any], choice: Raw, offers: list[list[Any]], n_allowed: int
) -> None:
    raws = [raw(tool) for tool in tools]
    additional = [AdditionalTools("input[0].tools", [raw(each) for each in offer], found=True) for offer in offers]
    start = time.process_time()
    box = toolbox.toolbox(raws, choice, additional=additional)
    assert time.process_time() - start < MAX_SECONDS
    assert len(box.specs) == n_allowed
