"""The line about memory at start: its sum, less the unused part of the KV cache, is the resident size."""

import http.client
import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.processes import START_SECONDS, Daemon, serving

pytestmark = pytest.mark.slow

MEMORY = re.compile(
    r"memory: weights .*, KV cache (\d+) MB .*, process \d+ MB: (\d+) MB of .* free, once all contexts are full"
)
N_TOKENS = 520
"""More than the 512 of a step."""
SETTINGS = [("smollm2", 2, 1024, "f16"), ("smollm2", 1, 4096, "q8_0"), ("gemma3", 4, 2048, "f16")]


def resident_megabytes(daemon: Daemon) -> float:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def fill(daemon: Daemon, n_tokens: int) -> None:
    """Let the model read a prompt of a full step and more."""
    with closing(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=START_SECONDS)) as connection:
        body = {"input": " the" * n_tokens, "max_output_tokens": 2, "temperature": 0, "store": False}
        connection.request("POST", "/v1/responses", json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    assert answer["usage"]["input_tokens"] >= n_tokens


@pytest.mark.parametrize(("model", "slots", "n_ctx", "kv_type"), SETTINGS)
def test_memory_line_is_within_a_tenth_of_the_resident_size(
    model: str, slots: int, n_ctx: int, kv_type: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(model)
    flags = ["--slots", str(slots), "--context", str(n_ctx), "--kv-type", kv_type, "--kv-snapshot-megabytes", "0"]
    with serving(tmp_path, "--model", str(path), *flags) as daemon:
        fill(daemon, N_TOKENS)
        line = MEMORY.search(daemon.log.read_text())
        assert line is not None
        kv_cache, total = map(int, line.groups())
        expected = total - kv_cache * (1 - N_TOKENS / (slots * n_ctx))
        assert resident_megabytes(daemon) == pytest.approx(expected, abs=0.1 * total)
