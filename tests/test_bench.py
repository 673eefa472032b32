"""The bench: its arithmetic by tables, and one run against a server that cuts its chunks where it hurts."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# As `python bench/run.py` has it: the bench is scripts, not a package.
sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from client import Recording
from report import Answer, frames, percentile, summarize, table, understand
from run import base_of, prompts

DELTA = {"type": "response.output_text.delta", "delta": "x"}
DONE = {"type": "response.completed", "response": {"usage": {"output_tokens": 3}}}


def data(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 99, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0], 50, 1.5),
        ([0.0, 10.0, 20.0, 30.0, 40.0], 90, 36.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_percentile_interpolates(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"data: a\n", b"\n"], [(1.0, "a")]),
        ([b"event: x\r\n", b"data:a\r\n", b"\r\n"], [(2.0, "a")]),
        ([b"data: a\n", b"data: b\n", b"\n"], [(2.0, "a\nb")]),
        ([b": ping\n", b"\n", b"data: [DONE]\n", b"\n"], [(3.0, "[DONE]")]),
        ([b"data: cut off\n"], []),
    ],
)
def test_a_frame_has_the_time_of_its_blank_line(lines: list[bytes], expected: list[tuple[float, str]]) -> None:
    assert list(frames((float(time), line) for time, line in enumerate(lines))) == expected


def pieces(raw: bytes, size: int) -> list[tuple[float, bytes]]:
    return [(10.0 + at, raw[at : at + size]) for at in range(0, len(raw), size)]


WHOLE = HEAD + chunk(data(DELTA)) + chunk(data(DELTA, DELTA, DONE)) + LAST


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(WHOLE)])
def test_an_answer_may_be_cut_anywhere(size: int) -> None:
    answer = understand(Recording(start=9.0, reads=pieces(WHOLE, size)))
    assert (len(answer.deltas), answer.tokens, answer.error) == (3, 3, "")
    assert answer.first_byte == 1.0
    assert answer.end is not None
    assert answer.deltas == sorted(answer.deltas)


def test_times_are_those_of_the_reads() -> None:
    reads = [(1.0, HEAD), (2.0, chunk(data(DELTA))), (4.0, chunk(data(DELTA, DELTA)))]
    reads += [(7.0, chunk(data(DONE)) + LAST)]
    assert understand(Recording(start=0.5, reads=reads)) == Answer(
        first_byte=0.5, deltas=[1.5, 3.5, 3.5], end=6.5, tokens=3
    )


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 4\r\n\r\noops", "HTTP 400: oops"),
        (HEAD + chunk(data(DELTA)) + LAST, "the stream ended without a terminal event"),
        (HEAD + chunk(data(DELTA))[:-9], "unreadable answer: IncompleteRead"),
        (HEAD + chunk(b"data: {\n\n") + LAST, "unreadable answer: JSONDecodeError"),
        (HEAD + chunk(data({"type": "response.failed"})) + LAST, '{"type": "response.failed"}'),
        (HEAD + chunk(data({"error": {"code": 500}})) + LAST, '{"error": {"code": 500}}'),
        (b"", "unreadable answer: RemoteDisconnected"),
    ],
)
def test_a_broken_answer_is_an_error(raw: bytes, error: str) -> None:
    reads = [(1.0, raw)] if raw else []
    assert understand(Recording(start=0.0, reads=reads)).error.startswith(error)


def test_http_1_0_without_usage_counts_deltas() -> None:
    raw = b"HTTP/1.0 200 OK\r\n\r\n" + data(DELTA, DELTA, {"type": "response.incomplete"})
    answer = understand(Recording(start=0.0, reads=[(1.0, raw)]))
    assert (answer.tokens, answer.counted, answer.error) == (2, True, "")


def test_the_report_is_exactly_this() -> None:
    answers = [
        Answer(first_byte=0.1, deltas=[0.2, 0.3, 0.5], end=0.6, tokens=5),
        Answer(first_byte=0.3, error="HTTP 503: busy"),
    ]
    one = {"n": 1, "p50": 0.0, "p90": 0.0, "p99": 0.0}
    figures = summarize(answers, wall=2.0)
    assert figures == {
        "ok": 1,
        "errors": 1,
        "first_error": "HTTP 503: busy",
        "wall_s": 2.0,
        "output_tokens": 5,
        "output_tokens_are_deltas": False,
        "output_tokens_per_s": 2.5,
        "output_tokens_per_s_per_stream": 8.333,
        "first_byte_ms": one | {"p50": 100.0, "p90": 100.0, "p99": 100.0},
        "ttft_ms": one | {"p50": 200.0, "p90": 200.0, "p99": 200.0},
        "itl_ms": {"n": 2, "p50": 150.0, "p90": 190.0, "p99": 199.0},
        "tpot_ms": one | {"p50": 100.0, "p90": 100.0, "p99": 100.0},
        "e2e_ms": one | {"p50": 600.0, "p90": 600.0, "p99": 600.0},
    }
    assert "(e2e - ttft) / (n - 1), n = usage.output_tokens" in table(figures)
    assert table(figures).endswith("first error: HTTP 503: busy")


def test_nothing_that_went_well_still_makes_a_report() -> None:
    figures = summarize([Answer(error="no")], wall=0.0)
    assert (figures["ttft_ms"]["p50"], figures["output_tokens_per_s"]) == (None, None)
    assert "-" in table(figures)


def test_prompts_are_the_same_for_a_seed_and_differ_from_the_first_word_on() -> None:
    texts = prompts(50, 8, seed=3)
    assert texts == prompts(50, 8, seed=3)
    assert len({text.split()[0] for text in texts}) == 50


@pytest.mark.parametrize("url", ["http://a:8080", "http://a:8080/", "http://a:8080/v1", "http://a:8080/v1/"])
def test_the_url_may_say_v1(url: str) -> None:
    assert base_of(url).geturl() == "http://a:8080"


class FakeServer:
    """Answers each connection with the next script of writes, and `/v1/models` with one name."""

    def __init__(self, listener: socket.socket, writes: list[bytes]) -> None:
        self.listener = listener
        self.writes = writes
        self.requests: list[bytes] = []

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # the test is over
            with connection:
                self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as request:
            if not (line := request.readline()):
                return  # only looked whether somebody is there
            headers = list(iter(request.readline, b"\r\n"))
            length = next((int(h.split(b":")[1]) for h in headers if h.startswith(b"Content-Length")), 0)
            self.requests.append(request.read(length))
        if line.startswith(b"GET /v1/models "):
            connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"data": [{"id": "tiny"}]}')
            return
        for write in self.writes:
            connection.sendall(write)


@contextmanager
def fake_server(writes: list[bytes]) -> Iterator[tuple[str, FakeServer]]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = FakeServer(listener, writes)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(__file__).parents[1] / "bench" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_run_ends_with_one_json_line() -> None:
    writes = [HEAD, chunk(data(DELTA))[:9], chunk(data(DELTA))[9:], chunk(data(DELTA, DELTA, DONE)), LAST]
    with fake_server(writes) as (url, server):
        run = bench("--url", f"{url}/v1/", "--requests", "3", "--concurrency", "2", "--tokens", "7")
    figures = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr) == (0, "")
    assert [figures[key] for key in ("model", "ok", "errors", "output_tokens")] == ["tiny", 3, 0, 9]
    assert [figures[f"{name}_ms"]["n"] for name in ("first_byte", "ttft", "itl", "tpot", "e2e")] == [
        3,
        3,
        6,
        3,
        3,
    ]
    asked = [json.loads(body) for body in server.requests if body]
    assert len(asked) == 4  # the warm-up is one of them
    assert len({body.pop("input") for body in asked}) == 4
    assert asked[0] == {
        "model": "tiny", "max_output_tokens": 7, "stream": True, "temperature": 0, "store": False
    }  # fmt: skip


def test_a_refusing_server_is_told_and_fails_the_run() -> None:
    with fake_server([b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"]) as (url, _):
        run = bench("--url", url, "--model", "tiny", "--requests", "2", "--warmup", "0")
    assert run.returncode == 1
    assert "first error: HTTP 503: busy" in run.stdout
    assert json.loads(run.stdout.splitlines()[-1])["errors"] == 2


@pytest.mark.parametrize("extra", [[], ["--model", "tiny"]])
def test_nobody_listening_is_one_line_and_status_2(extra: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    run = bench("--url", url, *extra)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"bench: {url}: [Errno 111] Connection refused\n"
