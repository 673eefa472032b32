"""Time a loaded model: prompts, tokens, steps of four streams, and tokens beside a busy process.

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
"""Number of streams in a batched step."""
MAX_SAMPLE_SECONDS = 2.0
"""Maximum seconds of one sample's steps: with too many threads each step may stall for long."""
MAX_PROMPT_SECONDS = 2.0
"""Maximum seconds of a prompt; slower machines get a shorter prompt."""
MIN_PROMPT_TOKENS = 16
"""Minimum tokens of a prompt."""
MAX_THREAD_COUNTS = 8
"""Number of cores up to which every thread count is tried."""


class MeasurementPlan(Struct, frozen=True):
    """Amount of work to measure. The default measures SmolLM2 in less than a minute."""

    prompt: int = 384
    steps: int = 24
    busy_steps: int = 64
    rounds: int = 3
    seconds: float = 30.0
    """Seconds after which no further round begins; the first round always runs."""

    @property
    def n_ctx(self) -> int:
        """The context that a trial needs, rounded up as llama.cpp does."""
        return -(-(self.prompt + max(self.steps, self.busy_steps)) // 256) * 256


class _Samples(Struct):
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    batch4: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)


def counts_to_try(cores: int) -> list[int]:
    """Return the numbers of threads to try: all; on large machines the halvings and one less than all cores."""
    if cores <= MAX_THREAD_COUNTS:
        return list(range(1, cores + 1))
    halves = {cores >> shift for shift in range(cores.bit_length())}
    return sorted(halves | {cores - 1})


def measure(models: Mapping[Trial, Model], plan: MeasurementPlan) -> list[Measurement]:
    """Return a measurement of each trial. Raises ModelError.

    Each trial's model must have `STREAMS` slots of `plan.n_ctx` tokens. Trials may share a model.
    """
    clocks = _clocks(models, plan)
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


def _clocks(models: Mapping[Trial, Model], plan: MeasurementPlan) -> dict[Trial, "_Stopwatch"]:
    """Return the stopwatch of each trial; trials of one model share it."""
    unique = {id(model): model for model in models.values()}
    clocks = {key: _Stopwatch(model, plan) for key, model in unique.items()}
    return {trial: clocks[id(model)] for trial, model in models.items()}


class _Stopwatch:
    """Runs one model and records the times."""

    def __init__(self, model: Model, plan: MeasurementPlan) -> None:
        self._model = model
        self._plan = plan
        self._slots = range(min(STREAMS, model.info.n_slots))
        model.use_threads(1, 1)
        self._prompt = MIN_PROMPT_TOKENS
        self._prefill(0)  # loads the weights into memory
        rate = MIN_PROMPT_TOKENS / self._prefill(0)
        max_tokens = model.info.n_ctx - max(plan.steps, plan.busy_steps)
        self._prompt = int(min(plan.prompt, max_tokens, max(MIN_PROMPT_TOKENS, rate * MAX_PROMPT_SECONDS)))
        self._fill()

    def time_idle(self, threads: int, samples: _Samples) -> None:
        """Time prompt, steps of one stream and steps of all streams."""
        self._model.use_threads(threads, threads)
        samples.prefill.append(self._prompt / self._prefill(0))
        samples.decode += self._steps(self._slots[:1], self._plan.steps)
        if self._model.info.batched and len(self._slots) > 1:
            samples.batch4 += self._steps(self._slots, self._plan.steps)

    def time_busy(self, threads: int, samples: _Samples) -> None:
        """Time the steps of one stream beside a busy process."""
        self._model.use_threads(threads, threads)
        samples.busy += self._steps(self._slots[:1], self._plan.busy_steps)

    def _steps(self, slots: Sequence[int], count: int) -> list[float]:
        """Return the milliseconds of each step."""
        if not self._model.info.truncates:
            self._fill()
        took: list[float] = []
        end = time.perf_counter() + MAX_SAMPLE_SECONDS
        while len(took) < count and (not took or time.perf_counter() < end):
            position = self._prompt + len(took)
            took.append(1e3 * self._timed([BatchEntry(slot, position, [_token(position, slot)], 1) for slot in slots]))
        return took

    def _fill(self) -> None:
        for slot in self._slots:
            self._prefill(slot)

    def _prefill(self, slot: int) -> float:
        """Return the seconds of a prompt."""
        tokens = [_token(position, slot) for position in range(self._prompt)]
        size = self._model.info.max_batch_tokens
        parts = [(at, tokens[at : at + size]) for at in range(0, len(tokens), size)]
        return sum(self._timed([BatchEntry(slot, at, part, int(at + size >= len(tokens)))]) for at, part in parts)

    def _timed(self, batch: Sequence[BatchEntry]) -> float:
        begin = time.perf_counter()
        self._model.decode(batch)
        return time.perf_counter() - begin


def _token(position: int, slot: int) -> int:
    """Return an arbitrary token: the time does not depend on it."""
    return (position * 7 + slot) % 97


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    """Run another process that uses all of a core, as any neighbour may."""
    parent = os.getpid()  # it ends by itself if this process is killed
    spin = f"import os\nwhile os.getppid() == {parent}: sum(range(100_000))"
    with subprocess.Popen([sys.executable, "-I", "-c", spin]) as process:
        try:
            yield
        finally:
            process.kill()


def _measurement(trial: Trial, samples: _Samples) -> Measurement:
    batch4 = median(samples.batch4) if samples.batch4 else None
    stall = sorted(samples.busy)[int(0.99 * (len(samples.busy) - 1))]
    return Measurement(trial, median(samples.prefill), median(samples.decode), batch4, stall)
