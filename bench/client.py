"""The bench's HTTP client: many streams in one thread, and no parsing while the clock runs.

On a machine with two cores a heavy client would measure itself. Therefore it uses raw sockets with one selector, and a
read costs one `recv`, one clock reading and one `append`. A thread per stream would wait for the GIL (up to 5 ms)
before it could read the clock; parsing between reads would delay the other streams' clock readings. HTTP, SSE and JSON
are parsed from the recordings after the last stream has ended (`answer.py`).
"""

import os
import selectors
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from transport import ClientConnection, ConnectionPhase, Endpoint

STALL_SECONDS = 600.0
"""Seconds without data after which a stream has failed. A small machine may need minutes before its first token."""


@dataclass(slots=True, frozen=True)
class WireRequest:
    """The bytes of a request, and the maximum tokens that it asks for."""

    data: bytes
    asked_tokens: int | None = None


@dataclass(slots=True)
class Recording:
    """The raw bytes of one response with their times, not yet parsed. Times are `perf_counter` seconds.

    `start` is taken before `connect`, so a slow accept counts as the server's time.
    """

    start: float
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    error: str = ""
    error_kind: str = ""
    dropped: bool = False
    """True if we hung up before the response ended."""
    cut: bool = False
    """True if the server closed before the end that the response's head announces."""
    planned: float | None = None
    asked_tokens: int | None = None


class OpenStream:
    """A recording and its connection."""

    def __init__(self, recording: Recording, request: bytes, connection: ClientConnection) -> None:
        self.recording = recording
        self.request = request
        self.connection = connection
        self.reused = connection.phase is not ConnectionPhase.CONNECT
        """True if the connection carried another request before."""
        self.active = recording.start


class StreamClient:
    """Streams to one address. They advance only inside `turn` and the methods that call it."""

    def __init__(self, endpoint: Endpoint, keep_alive: bool = True, stall: float = STALL_SECONDS) -> None:
        self.on_turn: Callable[[], None] = lambda: None
        """Called after each turn: the progress line."""
        self.ended = 0
        """Number of complete responses."""
        self.reads = 0
        self.interrupted = False
        """True after `interrupt`: no further request can be started."""
        self._endpoint = endpoint
        self.keep_alive = keep_alive
        self._stall = stall
        self._selector = selectors.DefaultSelector()
        self._idle: list[ClientConnection] = []
        self._streams: dict[int, OpenStream] = {}
        """Streams by the `id` of their recordings."""
        self._next_check = 0.0

    def start(self, request: WireRequest, planned: float | None = None) -> Recording:
        """Start a request, on an idle connection if there is one. Raises KeyboardInterrupt after an interrupt."""
        if self.interrupted:
            raise KeyboardInterrupt
        recording = Recording(perf_counter(), planned=planned, asked_tokens=request.asked_tokens)
        stream = OpenStream(recording, request.data, self._connection())
        stream.connection.request(request.data)
        self._streams[id(recording)] = stream
        self._selector.register(stream.connection.socket, stream.connection.wants, stream)
        if stream.reused:
            self._serve(stream)
        return recording

    @property
    def busy(self) -> int:
        """Return the number of incomplete responses."""
        return len(self._streams)

    def running(self, recording: Recording) -> bool:
        """True if the response is still incomplete."""
        return id(recording) in self._streams

    def drop(self, recording: Recording) -> None:
        """Hang up, as a client does whose user walks away. Ignore a complete response."""
        if stream := self._streams.get(id(recording)):
            recording.dropped = True
            self._end(stream)

    def interrupt(self) -> None:
        """Hang up all streams. An interrupt may come in the middle of any method, so no other state is used."""
        self.interrupted = True
        for stream in self._streams.values():
            stream.recording.dropped = True
            stream.connection.socket.close()
        self._streams.clear()
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().socket.close()

    def turn(self, seconds: float = 1.0) -> list[Recording]:
        """Wait once for data, at most `seconds`, and return the recordings that ended."""
        ready = self._selector.select(seconds)
        ended = [key.data.recording for key, _ in ready if self._serve(key.data)]
        if (now := perf_counter()) >= self._next_check:
            self._next_check = now + 1.0
            ended += self._stalled(now)
        self.on_turn()
        return ended

    def wait(self, seconds: float) -> None:
        """Let the streams run for that many seconds."""
        until = perf_counter() + seconds
        while (left := until - perf_counter()) > 0:
            self.turn(left)

    def finish(self, recordings: Sequence[Recording]) -> None:
        """Run until all these recordings are complete; others may continue."""
        while any(self.running(recording) for recording in recordings):
            self.turn()

    def read_until(self, recording: Recording, reached: Callable[[Recording], bool]) -> None:
        """Run until the response has reached a state, or is complete."""
        while self.running(recording) and not reached(recording):
            self.turn()

    def play(self, requests: Sequence[WireRequest], concurrency: int) -> list[Recording]:
        """Run the requests, `concurrency` at a time, and return the recordings in the order of their starts."""
        waiting = deque(requests)
        recordings: list[Recording] = []
        while waiting or self._streams:
            while waiting and len(self._streams) < concurrency:
                recordings.append(self.start(waiting.popleft()))
            self.turn()
        return recordings

    def _connection(self) -> ClientConnection:
        while self._idle:
            if (idle := self._idle.pop()).alive():
                return idle
            idle.socket.close()
        return ClientConnection(self._endpoint)

    def _serve(self, stream: OpenStream) -> bool:
        """Advance one stream. Return True if it has ended."""
        connection = stream.connection
        before, socket = connection.wants, connection.socket
        over = self._advance(stream)
        if over and stream.reused and not stream.recording.reads:
            self._selector.unregister(socket)
            self._reconnect(stream)
            return False
        if over:
            self._end(stream, socket)
        elif connection.socket is not socket:  # TLS wraps the socket in a new object
            self._selector.unregister(socket)
            self._selector.register(connection.socket, connection.wants, stream)
        elif connection.wants != before:
            self._selector.modify(socket, connection.wants, stream)
        return over

    def _advance(self, stream: OpenStream) -> bool:
        """Send or record. Return True if the response is complete, or has failed."""
        connection, recording = stream.connection, stream.recording
        try:
            data = connection.advance()
            while data:
                stream.active = perf_counter()
                recording.reads.append((stream.active, data))
                self.reads += 1
                if connection.complete(data) or connection.phase is ConnectionPhase.SEND:
                    return True
                data = connection.advance() if connection.pending() else None
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and not error.strerror else error.strerror or str(error)
            recording.error, recording.error_kind = f"connection: {reason}", connection.phase.value[1]
            return True
        if data == b"":
            recording.cut = connection.awaits_more
        return data == b""

    def _reconnect(self, stream: OpenStream) -> None:
        """Send the request on a new connection, as clients do if the server closed an idle one just then.

        llama.cpp's server announces `Keep-Alive` and closes after a stream.
        https://www.rfc-editor.org/rfc/rfc9112#section-9.6
        """
        stream.connection.socket.close()
        stream.recording.error = stream.recording.error_kind = ""
        stream.recording.cut = stream.reused = False
        stream.connection = ClientConnection(self._endpoint)
        stream.connection.request(stream.request)
        self._selector.register(stream.connection.socket, stream.connection.wants, stream)

    def _stalled(self, now: float) -> list[Recording]:
        """End the streams that got no data for too long, and return them."""
        stalled = [stream for stream in self._streams.values() if now - stream.active > self._stall]
        for stream in stalled:
            stream.recording.error = f"no data came for {self._stall:g} s"
            stream.recording.error_kind = "stall"
            self._end(stream)
        return [stream.recording for stream in stalled]

    def _end(self, stream: OpenStream, registered: object = None) -> None:
        """End one stream, and close its connection unless it can be used again."""
        connection, recording = stream.connection, stream.recording
        del self._streams[id(recording)]
        self.ended += 1
        self._selector.unregister(registered or connection.socket)  # type: ignore[arg-type]  # the socket before TLS
        if self.keep_alive and connection.reusable and not recording.dropped and not recording.error:
            self._idle.append(connection)
        else:
            connection.socket.close()
