"""The bench's HTTP client: many streams, one thread, and no thinking while the clock runs.

On a box with two cores a heavy client measures itself. So raw sockets stand under one selector, and a read
costs one `recv`, one look at the clock and one `append`. A thread per stream would wait for the GIL (up to
5 ms) before it could look at the clock; parsing between reads would hold up the clock of the other streams.
So HTTP, SSE and JSON are taken apart from the recordings, after the last stream has ended (`report.py`).
"""

import selectors
import socket
from collections import deque
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


class Load:
    """Plays requests against one address, `concurrency` at a time; the next starts when one ends."""

    def __init__(self, address: Any, family: int, requests: list[bytes]) -> None:
        self._address = address
        self._family = family
        self._waiting = deque(requests)
        self._recordings: list[Recording] = []
        self._selector = selectors.DefaultSelector()

    def play(self, concurrency: int) -> list[Recording]:
        """The recordings, in the order in which the requests started."""
        with self._selector:
            for _ in range(concurrency):
                self._start_next()
            while self._selector.get_map():
                ready = self._selector.select(SILENCE_SECONDS)
                for key, _ in ready:
                    self._serve(key.data)
                if not ready:
                    self._give_up()
        return self._recordings

    def _start_next(self) -> None:
        if self._waiting:
            stream = _Stream(self._address, self._family, self._waiting.popleft())
            self._recordings.append(stream.recording)
            self._selector.register(stream.socket, selectors.EVENT_WRITE, stream)

    def _serve(self, stream: _Stream) -> None:
        try:
            if self._selector.get_key(stream.socket).events == selectors.EVENT_READ:
                over = stream.receive()
            else:
                over = False
                if stream.send():
                    self._selector.modify(stream.socket, selectors.EVENT_READ, stream)
        except OSError as error:
            stream.recording.error = f"connection: {error.strerror or error}"
            over = True
        if over:
            self._end(stream)
            self._start_next()

    def _end(self, stream: _Stream) -> None:
        self._selector.unregister(stream.socket)
        stream.socket.close()

    def _give_up(self) -> None:
        """Nothing came on any stream for `SILENCE_SECONDS`: all have failed, the waiting ones too."""
        for key in list(self._selector.get_map().values()):
            key.data.recording.error = f"nothing came for {SILENCE_SECONDS:.0f} s"
            self._end(key.data)
        self._waiting.clear()
