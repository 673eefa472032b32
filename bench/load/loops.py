"""Closed and open loops.

In a closed loop each user sends a request after the answer to the last one, so a server that stalls gets fewer requests
while it stalls: its stall is in the times of few requests. In an open loop requests start when planned, and their
times count from there: all requests that users would have sent meanwhile have waited.

An interrupt (KeyboardInterrupt) ends a loop: it hangs up the streams and returns the complete recordings.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from client import Recording, StreamClient, WireRequest


@contextmanager
def until_interrupted(client: StreamClient) -> Iterator[None]:
    """End the block on an interrupt, which `client.interrupted` then shows."""
    try:
        yield
    except KeyboardInterrupt:
        client.interrupt()


def closed_loop(client: StreamClient, requests: Sequence[WireRequest], concurrency: int) -> list[Recording]:
    """Send the requests, `concurrency` at a time."""
    waiting = iter(requests)
    return _loop(client, lambda: next(waiting, None), concurrency)


def timed_loop(
    client: StreamClient, request: Callable[[], WireRequest], concurrency: int, seconds: float
) -> list[Recording]:
    """Start requests for that many seconds, `concurrency` at a time, and wait for the last ones."""
    until = perf_counter() + seconds
    return _loop(client, lambda: request() if perf_counter() < until else None, concurrency)


def _loop(client: StreamClient, next_request: Callable[[], WireRequest | None], concurrency: int) -> list[Recording]:
    """Send requests, `concurrency` at a time, until there is no next one and all have ended."""
    recordings: list[Recording] = []
    with until_interrupted(client):
        more = True
        while more or client.busy:
            while more and client.busy < concurrency:
                if request := next_request():
                    recordings.append(client.start(request))
                else:
                    more = False
            if client.busy:
                client.turn()
    return _complete(recordings)


def open_loop(
    client: StreamClient, requests: Sequence[WireRequest], times: Sequence[float], limit: int | None = None
) -> list[Recording]:
    """Start each request at its time, in seconds from now, and return the recordings in that order.

    `limit` is the maximum number at a time: a request beyond it waits, and its wait counts.
    """
    begin = perf_counter()
    waiting = deque(zip(requests, times, strict=True))
    recordings: list[Recording] = []
    with until_interrupted(client):
        while waiting or client.busy:
            now = perf_counter() - begin
            while waiting and waiting[0][1] <= now and (limit is None or client.busy < limit):
                request, planned = waiting.popleft()
                recordings.append(client.start(request, begin + planned))
                now = perf_counter() - begin
            due = waiting[0][1] - now if waiting and (limit is None or client.busy < limit) else 1.0
            client.turn(min(1.0, max(0.0, due)))
    return _complete(recordings)


def _complete(recordings: Sequence[Recording]) -> list[Recording]:
    """Return the recordings without those that an interrupt has cut."""
    return [recording for recording in recordings if not recording.dropped]
