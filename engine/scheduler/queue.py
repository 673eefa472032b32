"""The queue of jobs that wait for a slot: each client's jobs in order, the clients in turn."""

from collections import deque

from engine.job import Job
from engine.scheduler.slots import Key


class FairQueue:
    """Round-robin queue: a client with a hundred jobs delays another client by at most one job."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[tuple[Key, Job]]] = {}
        """Jobs by client. The first client has waited longest for its turn."""

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, key: Key, job: Job) -> None:
        self._jobs.setdefault(job.client, deque()).append((key, job))

    def cancel(self, key: Key) -> None:
        for client, jobs in list(self._jobs.items()):
            self._put(client, deque(entry for entry in jobs if entry[0] != key))

    def next(self) -> tuple[Key, Job]:
        """Remove and return the first job of the client whose turn it is."""
        client, jobs = next(iter(self._jobs.items()))
        first = jobs.popleft()
        del self._jobs[client]  # moves the client to the end
        self._put(client, jobs)
        return first

    def _put(self, client: str, jobs: deque[tuple[Key, Job]]) -> None:
        if jobs:
            self._jobs[client] = jobs
        else:
            self._jobs.pop(client, None)
