"""Promise: a server whose store and prefix cache have had thousands of conversations is as fast as a new one."""

import signal
import statistics
import time
from pathlib import Path

from tests.soak.bounds import Bounds
from tests.soak.idle import latency
from tests.support import model_files
from tests.support.helpers import NAME, Server, delete, post
from tests.support.processes import serving

FLAGS = ("--cache-megabytes", "1000", "--kv-snapshot-megabytes", "1", "--keep-alive-timeout", "600")
LATENCY = 1.25
"""Ratio of the latencies at most, after the conversations and before them."""
DELETE_SECONDS = 0.5
"""Time of a DELETE and the next request at most, by the median."""
SHUTDOWN_SECONDS = 5.0
DELETES = 5


async def stored(server: Server, number: int) -> str:
    """Have a conversation that shares nothing with another one; return the id of its response."""
    letters = "".join(chr(97 + (number >> shift) % 16) for shift in range(0, 20, 4))
    answer = await post(server, input=letters * 8, max_output_tokens=1)
    assert answer.status == 200
    return str(answer.json["id"])


async def deletion_seconds(server: Server, response_id: str) -> float:
    began = time.perf_counter()
    assert (await delete(server, f"/v1/responses/{response_id}")).status == 200
    await latency(server, 1)
    return time.perf_counter() - began


async def run(bounds: Bounds, folder: Path) -> str:
    """Return latencies before and after many conversations. Raises AssertionError."""
    model = model_files.bpe(folder / "tiny.gguf", context=1024)
    ids: list[str] = []
    with serving(folder, "--model", str(model), "--alias", NAME, *FLAGS) as daemon:
        new = await latency(daemon)
        ids += [await stored(daemon, number) for number in bounds.numbers()]
        ratio = await latency(daemon) / new
        deletion = statistics.median([await deletion_seconds(daemon, each) for each in ids[-DELETES:]])
        began = time.perf_counter()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait()
        shutdown = time.perf_counter() - began
    figures = (
        f"{len(ids)} conversations, latency times {ratio:.2f}, DELETE and the next request {deletion * 1000:.0f} ms, "
        f"shutdown {shutdown:.1f} s"
    )
    assert ratio < LATENCY, figures
    assert deletion < DELETE_SECONDS, figures
    assert shutdown < SHUTDOWN_SECONDS, figures
    return figures
