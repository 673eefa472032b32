"""A scripted server for the bench's tests, and the bench's command against it."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
FLOWING = [HEAD, *[chunk(data(DELTA))] * 75, chunk(data(DONE)), LAST]


class FakeServer:
    """Answers each connection with the script of writes, `gap` apart, and `/v1/models` with one name.

    As `INPUT_TOKENS` it tells 10,000 and one for each word of the request.
    """

    def __init__(self, listener: socket.socket, writes: list[bytes], gap: float) -> None:
        self.listener = listener
        self.writes = writes
        self.gap = gap
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = 0
        self.cut_off = 0
        self._open = 0

    def serve(self) -> None:
        with ThreadPoolExecutor(16) as pool:
            while True:
                try:
                    connection, _ = self.listener.accept()
                except OSError:
                    return  # the test is over
                pool.submit(self.take, connection)

    def take(self, connection: socket.socket) -> None:
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        with connection:
            try:
                self.answer(connection)
            except OSError:
                self.cut_off += 1
        self._open -= 1

    def answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as request:
            if not (line := request.readline()):
                return  # only checked that the server listens
            headers = list(iter(request.readline, b"\r\n"))
            length = next((int(h.split(b":")[1]) for h in headers if h.startswith(b"Content-Length")), 0)
            body = request.read(length)
        if line.startswith(b"GET /v1/models "):
            connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"data": [{"id": "tiny"}]}')
            return
        self.requests.append(json.loads(body))
        tokens = b"%d" % (10_000 + len(body.split()))
        for write in self.writes:
            time.sleep(self.gap)
            connection.sendall(write.replace(b"%d" % INPUT_TOKENS, tokens))


@contextmanager
def fake_server(writes: list[bytes], gap: float = 0.0) -> Iterator[tuple[str, FakeServer]]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = FakeServer(listener, writes, gap)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(__file__).parents[2] / "bench" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
