"""A scripted server for the bench's tests, and the bench's command against it."""

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

DELTA = {"type": "response.output_text.delta", "delta": "x"}
INPUT_TOKENS = 99999
CACHED_TOKENS = 5000
DONE = {
    "type": "response.completed",
    "response": {
        "usage": {
            "output_tokens": 3,
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }
    },
}


def data(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


SHORT = [HEAD, chunk(data(DELTA))[:9], chunk(data(DELTA))[9:], chunk(data(DELTA, DELTA, DONE)), LAST]
FLOWING = [HEAD, *[chunk(data(DELTA))] * 200, chunk(data(DONE)), LAST]


class FairSlots:
    """Slots that are given in the order of arrival. `threading.Semaphore` gives them to any thread that is running."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        turn = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                return
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


class FakeServer:
    """Answers each request with the script of writes, `gap` apart, and `/v1/models` with one name.

    As `INPUT_TOKENS` it tells 10,000 and one for each word of the request. A connection stays open for other requests
    if the script has the end of a response. `stall` is the begin and the end of a time in which nothing is answered,
    in seconds since the first request; `slots` the number of requests that are answered at a time.
    """

    def __init__(
        self, listener: socket.socket, writes: list[bytes], gap: float, stall: tuple[float, float], slots: int = 256
    ) -> None:
        self.listener = listener
        self.writes = writes
        self.gap = gap
        self.requests: list[dict[str, Any]] = []
        self.headers: list[list[bytes]] = []
        self.most_at_once = 0
        self.connections = 0
        self.posting: set[socket.socket] = set()
        """Connections with at least one POST."""
        self.cut_off = 0
        self.closes_late = False
        """True if the server closes a connection once another request arrives on it."""
        self._busy = 0
        self._slots = FairSlots(slots)
        self._stall = stall
        self._begin: float | None = None
        self._open: set[socket.socket] = set()
        script = b"".join(writes)
        self._persistent = script.endswith(LAST) or (b"Content-Length" in script and b"HTTP/1.1" in script)

    def serve(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self.listener.accept()
            except (ssl.SSLError, ConnectionError):
                continue  # the client ended the handshake
            except OSError:
                break  # the test is over
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(connection)
            threads.append(threading.Thread(target=self.take, args=(connection,)))
            threads[-1].start()
        self.hang_up()
        for thread in threads:
            thread.join()

    def hang_up(self) -> None:
        """Close all connections."""
        for connection in [*self._open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def take(self, connection: socket.socket) -> None:
        self.connections += 1
        with connection, connection.makefile("rb") as requests:
            try:
                while self.answer(connection, requests):
                    pass
            except OSError:
                self.cut_off += 1
        self._open.discard(connection)

    def answer(self, connection: socket.socket, requests: BufferedReader) -> bool:
        """Answer one request. Return whether another may follow."""
        if not (line := requests.readline()):
            return False
        headers = list(iter(requests.readline, b"\r\n"))
        length = next((int(h.split(b":")[1]) for h in headers if h.startswith(b"Content-Length")), 0)
        body = requests.read(length)
        if line.startswith(b"GET "):
            known = line.startswith(b"GET /v1/models ")
            answer = b'{"data": [{"id": "tiny"}]}' if known else b"{}"
            status = b"200 OK" if known else b"404 Not Found"
            connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(answer), answer))
            return True
        self._busy += 1
        self.most_at_once = max(self.most_at_once, self._busy)
        self.posting.add(connection)
        self.requests.append(json.loads(body))
        self.headers.append(headers)
        try:
            with self._slots:
                self._write(connection, b"%d" % (10_000 + len(body.split())))
        finally:
            self._busy -= 1
        if self.closes_late:
            requests.peek(1)
            return False
        return self._persistent and b"Connection: close\r\n" not in headers

    def _write(self, connection: socket.socket, tokens: bytes) -> None:
        self._begin = self._begin or time.perf_counter()
        begin, end = self._stall
        if begin <= time.perf_counter() - self._begin < end:
            time.sleep(self._begin + end - time.perf_counter())
        for write in self.writes:
            time.sleep(self.gap)
            connection.sendall(write.replace(b"%d" % INPUT_TOKENS, tokens))


@contextmanager
def fake_server(
    writes: list[bytes],
    gap: float = 0.0,
    stall: tuple[float, float] = (0.0, 0.0),
    listener: socket.socket | None = None,
    slots: int = 256,
) -> Iterator[tuple[str, FakeServer]]:
    listener = listener or socket.create_server(("127.0.0.1", 0), backlog=512)
    server = FakeServer(listener, writes, gap, stall, slots)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        name = listener.getsockname()
        yield f"unix:{name}" if isinstance(name, str) else f"http://127.0.0.1:{name[1]}", server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(__file__).parents[2] / "bench" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
