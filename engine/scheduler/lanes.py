"""Two lanes of jobs: interactive jobs go first, batch jobs use what they leave.

While an interactive job runs, batch jobs get no step. While one waits and all slots are taken, the batch job that was
admitted last leaves its slot; its tokens go into the prefix cache, and it continues once a slot is free ("preemption",
vLLM).

Every batch job ends: the debt to the batch lane is the time of interactive steps while a batch job existed, less the
time of batch steps. At `MAX_DEBT_SECONDS` one batch job becomes interactive, and a new debt begins. A job leaves its
slot `MAX_PREEMPTIONS` times at most: without a prefix cache it loses its work each time.
"""

from collections.abc import Sequence

from engine.job import Lane
from engine.scheduler.queue import FairQueue
from engine.scheduler.slots import Key, Slot, TokenSequence, running_sequence

MAX_DEBT_SECONDS = 60.0
"""Seconds of interactive steps, less those of batch steps, until a batch job becomes interactive."""
MAX_PREEMPTIONS = 8
"""Number of times that a job leaves its slot."""


class Lanes:
    """The waiting jobs of both lanes, and the choice among the running ones."""

    def __init__(self, active: Sequence[Slot]) -> None:
        """`active` are the running slots, in order of admission."""
        self._active = active
        self._interactive_queue = FairQueue()
        self._batch_queue = FairQueue()
        self._debt = 0.0
        self._is_batch_active = False
        """True if a batch job had a slot at the last call of `stepping`."""

    @property
    def next_lane(self) -> Lane | None:
        """Lane of the next job; None if no job waits."""
        if self._interactive_queue:
            return Lane.INTERACTIVE
        return Lane.BATCH if self._batch_queue else None

    def add(self, sequence: TokenSequence) -> None:
        """Add a job to the queue of its lane."""
        self._queue(sequence.is_batch).add(sequence)

    def put_back(self, sequence: TokenSequence) -> None:
        """Make a job that has left its slot the next one of its lane."""
        self._queue(sequence.is_batch).put_back(sequence)

    def cancel(self, key: Key) -> None:
        """Remove a waiting job; ignore a job that does not wait."""
        self._interactive_queue.cancel(key)
        self._batch_queue.cancel(key)

    def next(self, lane: Lane) -> TokenSequence:
        """Remove and return the next job of a lane in which one waits."""
        return self._queue(lane is Lane.BATCH).next()

    def preemptible(self) -> Slot | None:
        """Return the slot of the batch job that was admitted last; None if no batch job can leave its slot."""
        slots = (slot for slot in reversed(self._batch()) if running_sequence(slot).preemptions < MAX_PREEMPTIONS)
        return next(slots, None)

    def stepping(self) -> Sequence[Slot]:
        """Return the running slots whose jobs may have a step now."""
        interactive = [slot for slot in self._active if not running_sequence(slot).is_batch]
        self._is_batch_active = len(interactive) < len(self._active)
        return interactive or self._active

    def record(self, is_batch: bool, seconds: float) -> None:
        """Record the lane and the duration of a step, whose slots `stepping` has chosen."""
        if is_batch:
            self._debt = max(self._debt - seconds, 0.0)
        elif self._is_batch_active or self._batch_queue:
            self._debt += seconds
        else:
            self._debt = 0.0

    def promote(self) -> None:
        """Make one batch job interactive if the debt is too large: the first one that runs, else the next one."""
        if self._debt < MAX_DEBT_SECONDS:
            return
        self._debt = 0.0
        if batch := self._batch():
            running_sequence(batch[0]).is_batch = False
        elif self._batch_queue:
            sequence = self._batch_queue.next()
            sequence.is_batch = False
            self._interactive_queue.add(sequence)

    def _queue(self, is_batch: bool) -> FairQueue:
        return self._batch_queue if is_batch else self._interactive_queue

    def _batch(self) -> list[Slot]:
        return [slot for slot in self._active if running_sequence(slot).is_batch]
