"""The bench's HTTP client: many streams, one thread, and no thinking while the clock runs.

On a box with two cores a heavy client measures itself. So raw sockets stand under one selector, and a read
costs one `recv`, one look at the clock and one `append`. A thread per stream would wait for the GIL (up to
5 ms) before it could look at the clock; parsing between reads would hold up the clock of the other streams.
So HTTP, SSE and JSON are taken apart from the recordings, after the last stream has ended (`answer.py`).
"""

import selectors
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

# A small box may think for minutes before its first token. This is for servers that never answer.
SILENCE_SECONDS = 600.0

_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Recording:
    """One request as it went over the wire, not yet understood. Times are `perf_counter` seconds.

    `start` is taken before `connect`, so a server that is slow to accept is charged for it.
    """

    start: float
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    error: str = ""
    dropped: bool = False
    """We hung up before the answer was over."""


class _Stream:
    """One connection: connects, sends its request, records what comes back."""

    def __init__(self, address: Any, family: int, request: bytes) -> None:
        self.recording = Recording(start=perf_counter())
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.connect_ex(address)  # any failure comes back from the first send
        self._unsent = request
        self._tail = b""

    def send(self) -> bool:
        """True once the whole request is with the kernel."""
        self._unsent = self._unsent[self.socket.send(self._unsent) :]
        return not self._unsent

    def receive(self) -> bool:
        """True once the answer is over: the server closed, or sent the last chunk and stays."""
        data = self.socket.recv(65536)
        if not data:
            return True
        self.recording.reads.append((perf_counter(), data))
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        return self._tail == _LAST_CHUNK


class Client:
    """Streams to one address. They move only inside `turn`, and in what is built on it."""

    def __init__(self, address: Any, family: int) -> None:
        self._address = address
        self._family = family
        self._selector = selectors.DefaultSelector()
        self._streams: dict[int, _Stream] = {}
        """By the `id` of their recordings."""

    def start(self, request: bytes) -> Recording:
        stream = _Stream(self._address, self._family, request)
        self._streams[id(stream.recording)] = stream
        self._selector.register(stream.socket, selectors.EVENT_WRITE, stream)
        return stream.recording

    def running(self, recording: Recording) -> bool:
        return id(recording) in self._streams

    def drop(self, recording: Recording) -> None:
        """Hang up, as a client does whose user walks away. Nothing to do for an answer that is over."""
        if stream := self._streams.get(id(recording)):
            recording.dropped = True
            self._end(stream)

    def turn(self, seconds: float = SILENCE_SECONDS) -> list[Recording]:
        """Wait once for something to come, no longer than `seconds`; those that ended by it.

        Raises TimeoutError where nothing came on any stream for `SILENCE_SECONDS`.
        """
        ready = self._selector.select(seconds)
        if not ready and seconds >= SILENCE_SECONDS:
            raise TimeoutError(f"nothing came for {seconds:.0f} s")
        return [key.data.recording for key, _ in ready if self._serve(key.data)]

    def wait(self, seconds: float) -> None:
        """Let the streams run for so long."""
        until = perf_counter() + seconds
        while (left := until - perf_counter()) > 0:
            self.turn(left)

    def finish(self, recordings: Sequence[Recording]) -> None:
        """Until all of them are over; others may run on."""
        while any(self.running(recording) for recording in recordings):
            self.turn()

    def play(self, requests: Sequence[bytes], concurrency: int) -> list[Recording]:
        """So many at a time, the next when one ends; the recordings, in the order of their starts."""
        waiting = deque(requests)
        recordings = [self.start(waiting.popleft()) for _ in range(min(concurrency, len(waiting)))]
        while self._streams:
            ended = self.turn()
            recordings += [self.start(waiting.popleft()) for _ in ended[: len(waiting)]]
        return recordings

    def _serve(self, stream: _Stream) -> bool:
        """True where the stream is over now."""
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

    def _end(self, stream: _Stream) -> None:
        del self._streams[id(stream.recording)]
        self._selector.unregister(stream.socket)
        stream.socket.close()
