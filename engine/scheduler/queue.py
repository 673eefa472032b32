"""The queue of jobs that wait for a slot: each client's jobs in order, the clients in turn."""

from collections import deque

from engine.scheduler.slots import Key, TokenSequence


class FairQueue:
    """Round-robin queue: a client with a hundred jobs delays another client by at most one job."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[TokenSequence]] = {}
        """Jobs by client. The first client has waited longest for its turn."""

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, sequence: TokenSequence) -> None:
        """Add a job after its client's others."""
        self._jobs.setdefault(sequence.client, deque()).append(sequence)

    def put_back(self, sequence: TokenSequence) -> None:
        """Make a job the next one again."""
        jobs = self._jobs.pop(sequence.client, deque())
        jobs.appendleft(sequence)
        self._jobs = {sequence.client: jobs, **self._jobs}

    def cancel(self, key: Key) -> None:
        """Remove a job; ignore one that does not wait."""
        for client, jobs in list(self._jobs.items()):
            self._put(client, deque(each for each in jobs if each.key != key))

    def next(self) -> TokenSequence:
        """Remove and return the first job of the client whose turn it is."""
        client, jobs = next(iter(self._jobs.items()))
        first = jobs.popleft()
        del self._jobs[client]  # moves the client to the end
        self._put(client, jobs)
        return first

    def _put(self, client: str, jobs: deque[TokenSequence]) -> None:
        if jobs:
            self._jobs[client] = jobs
        else:
            self._jobs.pop(client, None)
