"""Single parts of the way of a token from the inference thread to the socket, each alone. Figures are microseconds of
CPU time."""

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import trio

from engine.job import EngineOutput, Token
from server.protocol import sse
from server.protocol.events import OutputTextDelta

REPEATS = 2000
"""Calls of which the mean is taken."""
MICROSECONDS = 1e6
FRAME_BYTES = 190
"""Bytes of a frame with one delta, and its chunk header."""


def encode(events: int) -> float:
    """Return the time to encode a delta, with `events` of them in one piece."""
    deltas = [OutputTextDelta(100 + each, "msg_" + "0" * 32, 0, 0, " token") for each in range(events)]
    return _each(partial(sse.encode, deltas)) / events


def write() -> float:
    """Return the time of one write to a TCP socket on the loopback device, which nobody waits for."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as out:
        peer, _ = listener.accept()
        data = b"x" * FRAME_BYTES
        with peer:
            times = []
            for _ in range(REPEATS // 100):
                times.append(_each(partial(os.write, out.fileno(), data), 100))
                peer.recv(100 * FRAME_BYTES, socket.MSG_WAITALL)
            return sum(times) / len(times)


def hand_over() -> tuple[float, float]:
    """Return the time of the inference thread to hand over an output, and that of the event loop to pass it to a task.

    The event loop sleeps before each, as it does between two tokens of one stream.
    """
    return trio.run(_hand_over)


async def _hand_over() -> tuple[float, float]:
    token = trio.lowlevel.current_trio_token()
    send, receive = trio.open_memory_channel[EngineOutput](REPEATS)
    spent = 0.0

    def work() -> None:
        nonlocal spent
        for each in range(REPEATS):
            time.sleep(0.0003)
            began = time.thread_time()
            token.run_sync_soon(send.send_nowait, Token(each))
            spent += time.thread_time() - began

    began = time.thread_time()
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(REPEATS):
        await receive.receive()
    loop = time.thread_time() - began
    thread.join()
    return MICROSECONDS * spent / REPEATS, MICROSECONDS * loop / REPEATS


def _each(call: Callable[[], object], repeats: int = REPEATS) -> float:
    began = time.thread_time()
    for _ in range(repeats):
        call()
    return MICROSECONDS * (time.thread_time() - began) / repeats
