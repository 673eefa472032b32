"""Server with a model that ticks: each step gives every stream a token at a fixed time, for no work.

It runs in this process, on one core, as `responsed serve` does; the bench's own client reads from another process. At
each step, the model notes the CPU time of the event loop and of its own thread. Between two steps, the event loop has
carried one token of each stream from the hand-over to the socket.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import trio

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.chat_template import ChatTemplate
from engine.model import BatchEntry, FloatArray
from engine.runtime import Engine
from server import daemon
from server.api import App
from server.config import Config
from server.listening import listening_sockets
from server.served_model import ModelDetails
from server.systemd import Notifier

RUN = Path(__file__).parents[1] / "run.py"
WARM_UP_STEPS = 20
"""First steps that are not counted: caches are cold, and streams still begin."""


PARTIAL_SECONDS = 0.002
"""Seconds of a step of a prompt, or while some streams have not begun."""
MAX_TOKENS = 60_000
"""Tokens of a stream: more than any run reads."""


class Tick(NamedTuple):
    """Seconds at a step: of the clock, and of CPU of the event loop and of the inference thread."""

    clock: float
    loop: float
    inference: float


class MetronomeModel(ScriptedModel):
    """Model of `streams` slots that decodes a step of all of them every `period` seconds, and other steps at once."""

    def __init__(self, streams: int, period: float, ticks: int) -> None:
        """`done` is set after that many ticks."""
        super().__init__(n_ctx=65536, n_slots=streams, batched=True)
        self.info = msgspec.structs.replace(self.info, multi_row_logits=False, copies_prefixes=False, saves_state=False)
        self._streams = streams
        self._period = period
        self._due = 0.0
        self._loop_clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self._rows = [_row(letter) for letter in b"abcdefghijklmnopqrstuvwxyz      "]
        self.ticks: list[Tick] = []
        self._last = ticks
        self.done = threading.Event()

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        if len(batch) < self._streams or any(len(entry.tokens) > 1 for entry in batch):
            return time.sleep(PARTIAL_SECONDS)
        now = time.perf_counter()
        self._due = max(self._due + self._period, now)
        time.sleep(self._due - now)
        self.ticks.append(Tick(time.perf_counter(), time.clock_gettime(self._loop_clock), time.thread_time()))
        if len(self.ticks) >= self._last:
            self.done.set()
        return None

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        return self._rows[(len(self.ticks) + slot) % len(self._rows)].copy()


def _row(token: int) -> FloatArray:
    logits = np.zeros(256 + len(scripted.CONTROL), np.float32)
    logits[token] = 20
    return logits


class _Ready(Notifier):
    def __init__(self) -> None:
        super().__init__({})
        self.event = trio.Event()

    def notify(self, *lines: str, seconds: float = 0) -> None:
        if "READY=1" in lines:
            self.event.set()


def ticks_of(streams: int, rate: float, steps: int, timed: bool = False) -> list[Tick]:
    """Serve `streams` clients of `rate` tokens/s each, and return the ticks of the last `steps` steps.

    `timed`: requests ask for the times of their tokens.
    """
    model = MetronomeModel(streams, 1 / rate, steps + WARM_UP_STEPS + 1)
    trio.run(_serve, model, streams, timed)
    return model.ticks[WARM_UP_STEPS : WARM_UP_STEPS + steps + 1]


async def _serve(model: MetronomeModel, streams: int, timed: bool) -> None:
    config = Config(model="metronome", store="off", max_output_tokens=0, queue=streams, port=0, token_times=True)
    vocabulary = scripted.vocabulary()
    engine = Engine(model, vocabulary.end_tokens, cache_bytes=0)
    details = ModelDetails("metronome", 0, model.info, vocabulary, ChatTemplate(scripted.TEMPLATE, vocabulary))
    app, ready = App(config, engine, details), _Ready()
    with listening_sockets(config.hosts, 0, {}) as listening:
        url = f"http://127.0.0.1:{listening.port}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run, config, listening, engine, app, ready)
            await ready.event.wait()
            with _reading(url, streams, timed):
                await trio.to_thread.run_sync(model.done.wait, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()


@contextmanager
def _reading(url: str, streams: int, timed: bool) -> Iterator[None]:
    """Run the bench's client in a process of its own, on the other cores."""
    flags = ["--concurrency", str(streams), "--requests", str(streams), "--tokens", str(MAX_TOKENS)]
    fields = ["--field", "return_token_times=true"] if timed else []
    command = [sys.executable, str(RUN), "--url", url, "--warmup", "0", "--prompt-words", "4", *flags, *fields]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        if others := os.sched_getaffinity(os.getppid()) - os.sched_getaffinity(0):
            os.sched_setaffinity(process.pid, others)
        try:
            yield
        finally:
            process.kill()


def use_one_core() -> None:
    """Run this process on one core, and its clients on the others. Call it before any thread starts."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
