"""Promise: no bytes take the server down: no death, no status 500, 502 or 504, no traceback in the log."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import trio

from server.generation.failures import INTERNAL_ERROR
from tests.soak import mutations
from tests.soak.bounds import Bounds
from tests.support import model_files
from tests.support.helpers import NAME, PATIENCE, Server, get
from tests.support.processes import Daemon, serving

CLIENTS = 64
QUIET_SECONDS = 0.1
"""Silence of the server after which a client announces the end of its input."""
MAX_TOKENS = 8
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
FAULTS = re.compile(
    rb"HTTP/1\.1 50[024] "
    rb'|"status": ?50[024]\b'  # of an error over WebSocket
    rb"|\x88[\x02-\x7d]\x03\xf3"  # a close frame with 1011, an internal error
    rb"|" + re.escape(INTERNAL_ERROR.encode())
)


async def send(server: Server, numbers: Iterator[int], chance: random.Random, statuses: Counter[str]) -> None:
    """Send mutated bytes, one connection after the other, and count them and the statuses of their answers."""
    for _ in numbers:
        data = mutations.connection(chance)
        answer = b""
        with trio.move_on_after(PATIENCE) as patience:
            answer = await _answer(server, data)
        assert not patience.cancelled_caught, f"{data!r} is still answered after {PATIENCE:g} s"
        fault = FAULTS.search(answer)
        assert fault is None, f"{data!r} is answered by {fault}: {answer[-1000:]!r}"
        statuses.update(["connections", *map(bytes.decode, STATUS.findall(answer))])


async def _answer(server: Server, data: bytes) -> bytes:
    """Return all bytes that the server sends."""
    answer = bytearray()
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        try:
            await stream.send_all(data)
            while True:
                with trio.move_on_after(QUIET_SECONDS) as quiet:
                    received = await stream.receive_some()
                if quiet.cancelled_caught:
                    break
                if not received:
                    return bytes(answer)
                answer += received
            await stream.send_eof()
            while received := await stream.receive_some():
                answer += received
        except trio.BrokenResourceError:  # refused before it was sent completely
            pass
    return bytes(answer)


async def attack(server: Server, bounds: Bounds, seed: int = 1) -> Counter[str]:
    """Send from many clients; return the number of connections and of each status."""
    numbers, chance = bounds.numbers(), random.Random(seed)
    statuses: Counter[str] = Counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(send, server, numbers, chance, statuses)
    with trio.fail_after(PATIENCE):
        assert (await get(server, "/health")).status == 200
    return statuses


async def run(bounds: Bounds, folder: Path) -> str:
    """Attack a process; return the number of each status. Raises AssertionError."""
    model = model_files.bpe(folder / "tiny.gguf", context=1024)
    flags = ["--model", str(model), "--alias", NAME, "--slots", "4", "--max-output-tokens", str(MAX_TOKENS)]
    with serving(folder, *flags, "--metrics", "true", "--queue", str(CLIENTS)) as daemon:
        statuses = await attack(daemon, bounds)
        check_alive(daemon)
    connections = statuses.pop("connections")
    listed = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    return f"{connections} connections, answers by status: {listed}"


def check_alive(daemon: Daemon) -> None:
    """Assert that the process runs and has logged no traceback."""
    assert daemon.process.poll() is None, f"the server ended with {daemon.process.returncode}"
    log = daemon.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:5000]
