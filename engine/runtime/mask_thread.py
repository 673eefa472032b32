"""A second pair of hands: what the next token may be is found out beside the decode that it comes of.

The thread of `worker` hands over the constraints before a decode, and takes them back after it. This is a loop for a
thread that the worker starts; while the model decodes and llguidance searches, neither holds the GIL.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue

from engine.constraint import Constraint


class MaskThread:
    def __init__(self) -> None:
        self._requests: SimpleQueue[Constraint | None] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()

    def work(self) -> None:
        """Until `close`."""
        while (constraint := self._requests.get()) is not None:
            with suppress(BaseException):  # it goes wrong once more where it is applied, and is seen there
                constraint.compute_mask()
            self._done.put(None)

    def close(self) -> None:
        self._requests.put(None)

    @contextmanager
    def computing(self, constraints: Sequence[Constraint]) -> Iterator[None]:
        """While the block runs, they are prepared; behind it they are."""
        asked = [constraint for constraint in constraints if not constraint.mask_ready]
        for constraint in asked:
            self._requests.put(constraint)
        try:
            yield
        finally:
            for _ in asked:
                self._done.get()
