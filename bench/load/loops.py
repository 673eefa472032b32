"""Closed and open loops.

In a closed loop each user sends a request after the answer to the last one, so a server that stalls gets fewer requests
while it stalls: its stall is in the times of few requests. In an open loop requests start when planned, and their
times count from there: all requests that users would have sent meanwhile have waited.
"""

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from client import Recording, StreamClient, WireRequest


def closed_loop(client: StreamClient, requests: Sequence[WireRequest], concurrency: int) -> list[Recording]:
    """Send the requests, `concurrency` at a time."""
    return client.play(requests, concurrency)


def timed_loop(
    client: StreamClient, request: Callable[[], WireRequest], concurrency: int, seconds: float
) -> list[Recording]:
    """Start requests for that many seconds, `concurrency` at a time, and wait for the last ones."""
    until = perf_counter() + seconds
    running: list[Recording] = []
    recordings: list[Recording] = []
    while running or perf_counter() < until:
        while len(running) < concurrency and perf_counter() < until:
            running.append(client.start(request()))
            recordings.append(running[-1])
        client.turn()
        running = [recording for recording in running if client.running(recording)]
    return recordings


def open_loop(
    client: StreamClient, requests: Sequence[WireRequest], times: Sequence[float], limit: int | None = None
) -> list[Recording]:
    """Start each request at its time, in seconds from now, and return the recordings in that order.

    `limit` is the maximum number at a time: a request beyond it waits, and its wait counts.
    """
    begin = perf_counter()
    waiting = deque(zip(requests, times, strict=True))
    recordings: list[Recording] = []
    while waiting or client.busy:
        now = perf_counter() - begin
        while waiting and waiting[0][1] <= now and (limit is None or client.busy < limit):
            request, planned = waiting.popleft()
            recordings.append(client.start(request, begin + planned))
            now = perf_counter() - begin
        due = waiting[0][1] - now if waiting and (limit is None or client.busy < limit) else 1.0
        client.turn(min(1.0, max(0.0, due)))
    return recordings
