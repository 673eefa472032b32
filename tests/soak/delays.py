"""Promise: slow and silent clients delay nobody: the time between tokens of the others (ITL) stays within 5 %.

Rounds with and without such clients alternate. Both generate the same responses: prompt readers take the place
of the silent ones. The noise of the machine is the change between two rounds without slow clients.
"""

import contextlib
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import trio

from tests.soak.bounds import Bounds
from tests.support import model_files
from tests.support.helpers import NAME, PATIENCE, Client, Server, request
from tests.support.processes import serving

SILENT = 2
"""Clients that read nothing of a stream that is longer than the buffers."""
SLOW = 20
"""Clients that send half a head, and as many that send half a body."""
STEADY = 2
"""Clients whose ITL is measured."""
TOKENS = 600
RATIO = 1.05
LONG: dict[str, Any] = {
    "input": "Go.",
    "stream": True,
    "store": False,
    "top_logprobs": 20,
    "include": ["message.output_text.logprobs"],
}
"""Request whose events are so long that few fit into the buffers of a socket."""


async def narrow(server: Server) -> Client:
    """Return a connection with a small receive buffer."""
    connected = trio.socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await connected.connect(("127.0.0.1", server.port))
    return Client(trio.SocketStream(connected))


@contextlib.asynccontextmanager
async def slow_clients(server: Server, count: int = SLOW) -> AsyncIterator[None]:
    """Connect clients that stop within a head, and within a body."""
    whole = request("POST", "/v1/responses", b'{"input": "hello"}')
    async with contextlib.AsyncExitStack() as stack:
        for length in (20, len(whole) - 5):
            for _ in range(count):
                client = await stack.enter_async_context(await Client.to(server))
                await client.send(whole[:length])
        yield


async def follow(server: Server, gaps: list[float], fields: dict[str, Any]) -> None:
    """Read a stream to its end, and append the seconds between its chunks."""
    async with await Client.to(server) as client:
        await client.create(**fields)
        await client.created()
        last = time.perf_counter()
        while await client.chunk():
            now = time.perf_counter()
            gaps.append(now - last)
            last = now


async def p99(server: Server, slow: bool) -> float:
    """Return the p99 of the steady clients' ITL, beside slow clients or beside prompt ones."""
    gaps: list[float] = []
    steady = {"input": "hello", "stream": True, "store": False, "max_output_tokens": TOKENS}
    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        if slow:
            await stack.enter_async_context(slow_clients(server))
            for _ in range(SILENT):
                silent = await stack.enter_async_context(await narrow(server))
                await silent.create(**LONG)
        else:
            for _ in range(SILENT):
                nursery.start_soon(follow, server, [], LONG)
        for _ in range(STEADY):
            nursery.start_soon(partial(follow, server, gaps, steady))
    return float(np.percentile(gaps, 99))


async def run(bounds: Bounds, folder: Path) -> str:
    """Return the ratio of ITL p99 with and without slow clients. Raises AssertionError beyond 1.05 and noise."""
    model = model_files.bpe(folder / "tiny.gguf", context=1024)
    with serving(folder, "--model", str(model), "--alias", NAME, "--slots", str(SILENT + STEADY)) as daemon:
        await p99(daemon, slow=False)
        prompt, beside = [await p99(daemon, slow=False)], []
        for _ in bounds.numbers():
            with trio.fail_after(PATIENCE):
                beside.append(await p99(daemon, slow=True))
                prompt.append(await p99(daemon, slow=False))
    ratio = float(np.median(np.array(beside) / prompt[1:]))
    noise = float(np.percentile(np.array(prompt[1:]) / prompt[:-1], 75))
    figures = (
        f"{len(beside)} rounds, ITL p99 {np.median(beside) * 1000:.2f} ms beside slow clients, "
        f"{np.median(prompt) * 1000:.2f} ms without: times {ratio:.3f}, noise {noise:.3f}"
    )
    assert ratio < RATIO * max(noise, 1), figures
    return figures
