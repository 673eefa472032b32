"""Times a loaded model: prompts, tokens, tokens of four streams, and tokens beside a busy process.

Machines are noisy, so trials alternate in rounds, forwards and backwards, and medians are compared.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from msgspec import Struct, field

from engine.model import BatchEntry, Model
from engine.tuner.choice import Measurement, Trial

STREAMS = 4
MAX_SAMPLE_SECONDS = 2.0
"""Of the steps of one sample: with too many threads each may stall for long."""
MAX_PROMPT_SECONDS = 2.0
"""A prompt that takes longer is made shorter."""
MIN_PROMPT_TOKENS = 16
MAX_THREAD_COUNTS = 8


class MeasurementPlan(Struct, frozen=True):
    """How much is measured. By default: SmolLM2 in less than a minute."""

    prompt: int = 384
    steps: int = 24
    busy_steps: int = 64
    rounds: int = 3
    seconds: float = 30.0
    """No round begins after them; the first one always does."""

    @property
    def n_ctx(self) -> int:
        """Up to what llama.cpp rounds to anyway."""
        return -(-(self.prompt + max(self.steps, self.busy_steps)) // 256) * 256


class _Samples(Struct):
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    batch4: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)


def thread_counts(cores: int) -> list[int]:
    """The thread counts to try: all, or on large machines those that halve, and a core less than all."""
    if cores <= MAX_THREAD_COUNTS:
        return list(range(1, cores + 1))
    halves = {cores >> shift for shift in range(cores.bit_length())}
    return sorted(halves | {cores - 1})


def measure(models: Mapping[Trial, Model], plan: MeasurementPlan) -> list[Measurement]:
    """What each is tried on has `STREAMS` slots of `plan.n_ctx` tokens; several may use one. Raises ModelError."""
    unique = {id(model): _Stopwatch(model, plan) for model in {id(model): model for model in models.values()}.values()}
    clocks = {trial: unique[id(model)] for trial, model in models.items()}
    samples = {trial: _Samples() for trial in models}
    end = time.perf_counter() + plan.seconds
    for number in range(plan.rounds):
        if number and time.perf_counter() > end:
            break
        order = list(samples.items())[:: -1 if number % 2 else 1]
        for trial, sample in order:
            clocks[trial].time_idle(trial.threads, sample)
        with _busy_process():
            for trial, sample in order:
                clocks[trial].time_busy(trial.threads, sample)
    return [_measurement(trial, sample) for trial, sample in samples.items()]


class _Stopwatch:
    """Runs one model, and notes how long it took."""

    def __init__(self, model: Model, plan: MeasurementPlan) -> None:
        self._model = model
        self._plan = plan
        self._slots = range(min(STREAMS, model.info.n_slots))
        model.use_threads(1)
        self._prompt = MIN_PROMPT_TOKENS
        self._prefill(0)  # the weights come into memory
        rate = MIN_PROMPT_TOKENS / self._prefill(0)
        room = model.info.n_ctx - max(plan.steps, plan.busy_steps)
        self._prompt = int(min(plan.prompt, room, max(MIN_PROMPT_TOKENS, rate * MAX_PROMPT_SECONDS)))
        self._fill()

    def time_idle(self, threads: int, samples: _Samples) -> None:
        self._model.use_threads(threads)
        samples.prefill.append(self._prompt / self._prefill(0))
        samples.decode += self._steps(self._slots[:1], self._plan.steps)
        if self._model.info.batched and len(self._slots) > 1:
            samples.batch4 += self._steps(self._slots, self._plan.steps)

    def time_busy(self, threads: int, samples: _Samples) -> None:
        self._model.use_threads(threads)
        samples.busy += self._steps(self._slots[:1], self._plan.busy_steps)

    def _steps(self, slots: Sequence[int], most: int) -> list[float]:
        """Milliseconds of each step."""
        if not self._model.info.truncates:
            self._fill()
        took: list[float] = []
        end = time.perf_counter() + MAX_SAMPLE_SECONDS
        while len(took) < most and (not took or time.perf_counter() < end):
            position = self._prompt + len(took)
            took.append(1e3 * self._timed([BatchEntry(slot, position, [_token(position, slot)], 1) for slot in slots]))
        return took

    def _fill(self) -> None:
        for slot in self._slots:
            self._prefill(slot)

    def _prefill(self, slot: int) -> float:
        """Seconds."""
        tokens = [_token(position, slot) for position in range(self._prompt)]
        most = self._model.info.max_batch_tokens
        parts = [(at, tokens[at : at + most]) for at in range(0, len(tokens), most)]
        return sum(self._timed([BatchEntry(slot, at, part, int(at + most >= len(tokens)))]) for at, part in parts)

    def _timed(self, batch: Sequence[BatchEntry]) -> float:
        begin = time.perf_counter()
        self._model.decode(batch)
        return time.perf_counter() - begin


def _token(position: int, slot: int) -> int:
    """Any will do: what they are makes no difference to the time."""
    return (position * 7 + slot) % 97


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    """Another process that keeps a core busy, as any neighbour may."""
    parent = os.getpid()  # should we be killed, it ends by itself
    spin = f"import os\nwhile os.getppid() == {parent}: sum(range(100_000))"
    with subprocess.Popen([sys.executable, "-I", "-c", spin]) as process:
        try:
            yield
        finally:
            process.kill()


def _measurement(trial: Trial, samples: _Samples) -> Measurement:
    together = median(samples.batch4) if samples.batch4 else None
    stall = sorted(samples.busy)[int(0.99 * (len(samples.busy) - 1))]
    return Measurement(trial, median(samples.prefill), median(samples.decode), together, stall)
