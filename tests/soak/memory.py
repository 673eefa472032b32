"""Promise: memory stays bounded: the resident size doesn't grow with the number of requests."""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trio

from tests.soak.bounds import Bounds
from tests.support import model_files
from tests.support.helpers import NAME, PATIENCE, Client, Server, encode, exchange
from tests.support.processes import serving
from tests.support.websockets import SocketClient

CLIENTS = 8
WARM_UP = 20_000
"""Requests before the first sample: the stores and caches below are full then."""
SCHEMAS = 20
"""Different schemas: the cache of grammars, up to 64 MB, would take 100,000 requests to fill."""
SAMPLE = 100
"""Requests between samples."""
BYTES_PER_REQUEST = 64.0
"""Slope that is measured as 0: 20,000 requests add 1.3 MB at most."""
FLAGS = ("--slots", "4", "--max-output-tokens", "8", "--store-responses", "200", "--cache-megabytes", "8")
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


async def ask(server: Server, numbers: Iterator[int], chance: random.Random) -> None:
    """Send requests of all kinds, one after the other."""
    for _ in numbers:
        with trio.fail_after(PATIENCE):
            await chance.choice(KINDS)(server, "x" * chance.randrange(1, 60) + str(chance.random()))


async def _whole(server: Server, text: str) -> None:
    await _post(server, "/v1/responses", 200, input=text)


async def _stream(server: Server, text: str) -> None:
    await _post(server, "/v1/responses", 200, input=text, stream=True)


async def _chat(server: Server, text: str) -> None:
    await _post(server, "/v1/chat/completions", 200, messages=[{"role": "user", "content": text}], stream=True)


async def _schema(server: Server, text: str) -> None:
    schema: dict[str, Any] = {**POINT, "title": f"{len(text) % SCHEMAS}"}
    format_ = {"type": "json_schema", "name": "point", "schema": schema, "strict": True}
    await _post(server, "/v1/responses", 200, input=text, text={"format": format_})


async def _refused(server: Server, text: str) -> None:
    await _post(server, "/v1/responses", 400, input=text, **{text: 1, "temperature": "hot"})


async def _missing(server: Server, text: str) -> None:
    await exchange(server, "GET", f"/v1/responses/resp_{text}")


async def _hang_up(server: Server, text: str) -> None:
    async with await Client.to(server) as client:
        await client.create(input=text, stream=True)
        await client.created()


async def _websocket(server: Server, text: str) -> None:
    async with await SocketClient.to(server) as client:
        await client.create(input=text, store=False)
        await client.until("response.in_progress")
        while (await client.event())["type"] not in ("response.completed", "response.incomplete"):
            pass


async def _post(server: Server, path: str, status: int, **body: Any) -> None:
    answer = await exchange(server, "POST", path, encode(**body))
    assert answer.status == status, answer.body


KINDS = (_whole, _stream, _chat, _schema, _refused, _missing, _hang_up, _websocket)


async def load(server: Server, numbers: Iterator[int], seed: int = 1) -> None:
    """Send requests from several clients at once."""
    chance = random.Random(seed)
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(ask, server, numbers, chance)


def resident_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def slope(samples: Sequence[int]) -> float:
    """Return the growth in bytes per request, by least squares."""
    return float(np.polyfit(np.arange(len(samples)) * SAMPLE, samples, 1)[0])


async def run(bounds: Bounds, folder: Path) -> str:
    """Return the slope of the resident size after a warm-up. Raises AssertionError if it is not 0."""
    model = model_files.bpe(folder / "tiny.gguf", context=1024)
    with serving(folder, "--model", str(model), "--alias", NAME, *FLAGS) as daemon:
        samples: list[int] = []

        def sampled(numbers: Iterator[int]) -> Iterator[int]:
            for number in numbers:
                if number % SAMPLE == 0:
                    samples.append(resident_bytes(daemon.process.pid))
                yield number

        await load(daemon, Bounds(WARM_UP, bounds.seconds).numbers())
        await load(daemon, sampled(bounds.numbers()))
    grown = slope(samples)
    figures = f"{len(samples) * SAMPLE} requests, {grown:.1f} bytes per request, {samples[-1] / 1e6:.1f} MB"
    assert grown < BYTES_PER_REQUEST, figures
    return figures
