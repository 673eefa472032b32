"""A thread that computes token masks while the model decodes.

The inference thread hands over the constraints before a decode and waits for their masks after it. The model and
llguidance both release the GIL while they work.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue

from engine.constraint import Constraint


class MaskThread:
    """Computes masks in a thread of its own; `work` is the thread's function."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[Constraint | None] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()

    def work(self) -> None:
        """Compute masks until `close`."""
        while (constraint := self._requests.get()) is not None:
            with suppress(BaseException):  # `apply_mask` will raise the error again
                constraint.compute_mask()
            self._done.put(None)

    def close(self) -> None:
        """End the thread."""
        self._requests.put(None)

    @contextmanager
    def computing(self, constraints: Sequence[Constraint]) -> Iterator[None]:
        """Compute the constraints' masks while the block runs; at its end all are ready."""
        pending = [constraint for constraint in constraints if not constraint.mask_ready]
        for constraint in pending:
            self._requests.put(constraint)
        try:
            yield
        finally:
            for _ in pending:
                self._done.get()
