"""Promise: 500 idle connections take less than 20 MB and cost no latency."""

import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.soak.bounds import Bounds
from tests.soak.memory import resident_bytes
from tests.support import model_files
from tests.support.helpers import NAME, Client, Server, post
from tests.support.processes import serving

CONNECTIONS = 500
MEGABYTES = 20.0
ASKED = 40
"""Requests in a row that are timed, with and without the idle connections."""
LATENCY = 1.25
"""Ratio of the latencies at most, by the median of the rounds."""
KEEP_ALIVE_SECONDS = "600"


@contextlib.asynccontextmanager
async def idle(server: Server, count: int) -> AsyncIterator[None]:
    """Open connections, half of which have had a request."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            client = await stack.enter_async_context(await Client.to(server))
            if number % 2:
                await client.request("GET", "/health")
                assert (await client.answer()).status == 200
        yield


async def latency(server: Server, requests: int = ASKED) -> float:
    """Return the least seconds that a short answer takes: other work on the machine lengthens the others."""
    seconds = []
    for _ in range(requests):
        began = time.perf_counter()
        assert (await post(server, input="hello", max_output_tokens=1, store=False)).status == 200
        seconds.append(time.perf_counter() - began)
    return min(seconds)


async def run(bounds: Bounds, folder: Path) -> str:
    """Return memory and latency of idle connections, over several rounds. Raises AssertionError."""
    model = model_files.bpe(folder / "tiny.gguf", context=1024)
    flags = ["--model", str(model), "--alias", NAME, "--keep-alive-timeout", KEEP_ALIVE_SECONDS]
    ratios: list[float] = []
    with serving(folder, *flags) as daemon:
        await latency(daemon)
        before = resident_bytes(daemon.process.pid)
        for _ in bounds.numbers():
            alone = await latency(daemon)
            async with idle(daemon, CONNECTIONS):
                beside = await latency(daemon)
                grown = (resident_bytes(daemon.process.pid) - before) / 1e6
            assert grown < MEGABYTES, f"{CONNECTIONS} idle connections take {grown:.1f} MB"
            ratios.append(beside / alone)
    ratio = statistics.median(ratios)
    figures = f"{len(ratios)} rounds, {CONNECTIONS} idle connections take {grown:.1f} MB, latency times {ratio:.2f}"
    assert ratio < LATENCY, figures
    return figures
