"""The bench's HTTP client: many streams in one thread, and no parsing while the clock runs.

On a machine with two cores a heavy client would measure itself. Therefore it uses raw sockets with one selector, and a
read costs one `recv`, one clock reading and one `append`. A thread per stream would wait for the GIL (up to 5 ms)
before it could read the clock; parsing between reads would delay the other streams' clock readings. HTTP, SSE and JSON
are parsed from the recordings after the last stream has ended (`answer.py`).
"""

import selectors
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

SILENCE_SECONDS = 600.0
"""Seconds without any data after which a run fails. A small machine may need minutes before its first token."""

_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Recording:
    """The raw bytes of one response with their times, not yet parsed. Times are `perf_counter` seconds.

    `start` is taken before `connect`, so a slow accept counts as the server's time.
    """

    start: float
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    error: str = ""
    dropped: bool = False
    """True if we hung up before the response ended."""


class _Connection:
    """One connection: connects, sends its request and records the response."""

    def __init__(self, address: Any, family: int, request: bytes) -> None:
        self.recording = Recording(start=perf_counter())
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.connect_ex(address)  # a failure is raised by the first send
        self._unsent = request
        self._tail = b""

    def send(self) -> bool:
        """Send more of the request. Return True once the kernel has all of it."""
        self._unsent = self._unsent[self.socket.send(self._unsent) :]
        return not self._unsent

    def receive(self) -> bool:
        """Record a read. Return True once the response is complete: the server closed, or sent the last chunk."""
        data = self.socket.recv(65536)
        if not data:
            return True
        self.recording.reads.append((perf_counter(), data))
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        return self._tail == _LAST_CHUNK


class StreamClient:
    """Streams to one address. They advance only inside `turn` and the methods that call it."""

    def __init__(self, address: Any, family: int) -> None:
        self._address = address
        self._family = family
        self._selector = selectors.DefaultSelector()
        self._streams: dict[int, _Connection] = {}
        """Streams by the `id` of their recordings."""

    def start(self, request: bytes) -> Recording:
        """Start a request."""
        stream = _Connection(self._address, self._family, request)
        self._streams[id(stream.recording)] = stream
        self._selector.register(stream.socket, selectors.EVENT_WRITE, stream)
        return stream.recording

    def running(self, recording: Recording) -> bool:
        """Return whether the response is still incomplete."""
        return id(recording) in self._streams

    def drop(self, recording: Recording) -> None:
        """Hang up, as a client does whose user walks away. Ignore a complete response."""
        if stream := self._streams.get(id(recording)):
            recording.dropped = True
            self._end(stream)

    def turn(self, seconds: float = SILENCE_SECONDS) -> list[Recording]:
        """Wait once for data, at most `seconds`, and return the recordings that ended.

        Raises TimeoutError if no stream got data for `SILENCE_SECONDS`.
        """
        ready = self._selector.select(seconds)
        if not ready and seconds >= SILENCE_SECONDS:
            raise TimeoutError(f"no data came for {seconds:.0f} s")
        return [key.data.recording for key, _ in ready if self._serve(key.data)]

    def wait(self, seconds: float) -> None:
        """Let the streams run for that many seconds."""
        until = perf_counter() + seconds
        while (left := until - perf_counter()) > 0:
            self.turn(left)

    def finish(self, recordings: Sequence[Recording]) -> None:
        """Run until all these recordings are complete; others may continue."""
        while any(self.running(recording) for recording in recordings):
            self.turn()

    def read_until(self, recording: Recording, text: bytes) -> None:
        """Run until the response contains `text` in one read, or is complete."""
        while self.running(recording) and not any(text in data for _, data in recording.reads):
            self.turn()

    def play(self, requests: Sequence[bytes], concurrency: int) -> list[Recording]:
        """Run the requests, `concurrency` at a time, and return the recordings in the order of their starts."""
        waiting = deque(requests)
        recordings = [self.start(waiting.popleft()) for _ in range(min(concurrency, len(waiting)))]
        while self._streams:
            ended = self.turn()
            recordings += [self.start(waiting.popleft()) for _ in ended[: len(waiting)]]
        return recordings

    def _serve(self, stream: _Connection) -> bool:
        """Advance one stream. Return True if it has ended."""
        over = False
        try:
            if self._selector.get_key(stream.socket).events == selectors.EVENT_READ:
                over = stream.receive()
            elif stream.send():
                self._selector.modify(stream.socket, selectors.EVENT_READ, stream)
        except OSError as error:
            stream.recording.error = f"connection: {error.strerror or error}"
            over = True
        if over:
            self._end(stream)
        return over

    def _end(self, stream: _Connection) -> None:
        """Close one stream."""
        del self._streams[id(stream.recording)]
        self._selector.unregister(stream.socket)
        stream.socket.close()
