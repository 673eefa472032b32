"""The threads of each step: sets the counts that the governor chooses, and times the steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine.model import Model, ThreadCounts
from engine.runtime.cpu_pressure import CpuPressure
from engine.scheduler import ThreadGovernor


class StepThreads:
    """Belongs to the inference thread."""

    def __init__(self, model: Model, counts: ThreadCounts | None) -> None:
        """None leaves the model's threads as they are."""
        self._model = model
        self._governor = ThreadGovernor(counts) if counts is not None else None
        self._pressure = CpuPressure()
        self._used: tuple[int, int] | None = None

    @contextmanager
    def decoding(self, rows: int) -> Iterator[None]:
        """Set the counts for the decode inside the block, which has `rows` tokens. A failed decode is not recorded."""
        if self._governor is None:
            yield
            return
        began = time.perf_counter()
        counts = self._governor.choose(rows, began)
        if counts != self._used:
            self._model.use_threads(*counts)
            self._used = counts
        yield
        now = time.perf_counter()
        self._governor.record(rows, now - began, now, self._pressure.share(now))
