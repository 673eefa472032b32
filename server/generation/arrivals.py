"""Outputs of the generator, as many as have arrived."""

import contextlib
import math
from typing import TypeVar

import trio

T = TypeVar("T")


async def arrived_outputs(outputs: trio.MemoryReceiveChannel[T], due: float) -> list[T]:
    """Wait for outputs until `due`, and return all available ones; one `send` of many costs no more than of one.

    While text streams, `due` is infinite and no cancel scope is made: it would cost a tenth of a token's latency.
    """
    if due == math.inf:
        arrived = [await outputs.receive()]
    else:
        arrived = []
        with trio.move_on_at(due):
            arrived.append(await outputs.receive())
    with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            arrived.append(outputs.receive_nowait())
    return arrived
