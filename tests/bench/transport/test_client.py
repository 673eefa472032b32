"""The client's connections: kept open, encrypted, over a Unix socket, refused, broken and silent."""

import json
import socket
import ssl
import time
from pathlib import Path

import pytest
from answer import parse
from client import StreamClient, WireRequest
from load.progress import Expected, ProgressLine
from transport import Endpoint
from transport.connection import ResponseEnd

from tests.bench.fake_server import DELTA, DONE, FLOWING, HEAD, LAST, SHORT, bench, chunk, data, fake_server
from tests.support import certificates

pytestmark = pytest.mark.slow

REQUEST = WireRequest(b"POST /v1/responses HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 3)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://a:8080", "http://a:8080"),
        ("http://a:8080/", "http://a:8080"),
        ("http://a:8080/v1", "http://a:8080"),
        ("http://a:8080/v1/", "http://a:8080"),
        ("a/models/v1", "http://a/models"),
        ("https://a", "https://a"),
        ("[::1]:80", "http://[::1]:80"),
        ("unix:/run/x", "unix:/run/x"),
        ("unix:///run/x", "unix:/run/x"),
    ],
)
def test_url_is_completed(url: str, expected: str) -> None:
    assert Endpoint(url).url == expected


@pytest.mark.parametrize("url", ["ftp://a", "http://", "", "unix:run/x", "http://a/v1?key=1"])
def test_url_that_cannot_be_completed_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="the URL must be http://HOST:PORT, https://HOST:PORT or unix:PATH"):
        Endpoint(url)


CASES = {
    "chunked": (HEAD + chunk(b"x") + LAST, True, True),
    "chunked, unfinished": (HEAD + chunk(b"x"), False, True),
    "a length": (b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy", True, True),
    "a length, unfinished": (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbus", False, True),
    "no body": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True, True),
    "behind an interim response": (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + HEAD + LAST, True, True),
    "a head, unfinished": (b"HTTP/1.1 200 OK\r\n", False, False),
    "until it closes": (b"HTTP/1.1 200 OK\r\n\r\ndata", False, False),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", True, False),
    "the last one": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", True, False),
}


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("case", CASES)
def test_response_end_is_found_at_any_split(case: str, size: int) -> None:
    raw, complete, reusable = CASES[case]
    end = ResponseEnd()
    ends = [end.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
    assert (ends[-1], end.reusable) == (complete, reusable)
    assert not any(ends[:-1])


def test_requests_share_connections_by_default() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--requests", "8", "--concurrency", "2", "--warmup", "0")
    assert (run.returncode, len(server.posting)) == (0, 2)


def test_no_keep_alive_opens_a_connection_for_each_request() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--requests", "8", "--no-keep-alive", "--warmup", "0")
    assert (run.returncode, len(server.posting)) == (0, 8)
    assert "requests differ from a client's default ones: a connection for each request\n" in run.stdout


def test_connection_that_the_server_closed_is_not_used_again() -> None:
    with fake_server(SHORT) as (url, server):
        endpoint = Endpoint(url)
        endpoint.resolve()
        client = StreamClient(endpoint)
        first = client.play([REQUEST], 1)
        server.hang_up()
        time.sleep(0.05)
        second = client.play([REQUEST], 1)
        client.close()
    assert [parse(recording).error for recording in (*first, *second)] == ["", ""]


def test_connection_that_the_server_closes_just_then_is_replaced() -> None:
    with fake_server(SHORT) as (url, server):
        server.closes_late = True
        run = bench("--url", url, "--requests", "4", "--warmup", "0")
    figures = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"]["all"]
    assert (run.returncode, figures["ok"], len(server.posting)) == (0, 4, 4)


def test_api_key_is_sent_and_not_printed() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, "--api-key", "sk-secret", "--requests", "1")
    assert all(b"Authorization: Bearer sk-secret\r\n" in headers for headers in server.headers)
    assert "secret" not in run.stdout


def test_url_of_another_path_shows_the_answer() -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--url", f"{url}/api")
    message = f"bench: {url}/api: /v1/models has status 404; is it the right URL? It answers: {{}}\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", message)


def test_unix_socket_is_measured(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    with fake_server(SHORT, listener=listener) as (url, server):
        run = bench("--url", url, "--requests", "3")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, result["targets"][0]["groups"]["all"]["ok"]) == (0, 3)
    assert b"Host: localhost\r\n" in server.headers[0]


def tls_listener(folder: Path) -> socket.socket:
    files = certificates.certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certfile, files.keyfile)
    return context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)


@pytest.mark.parametrize("flags", [["--insecure"], ["--ca", "server.crt"]])
def test_https_is_measured(tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with fake_server(SHORT, listener=tls_listener(tmp_path)) as (url, _):
        run = bench("--url", url.replace("http://127.0.0.1", "https://localhost"), "--requests", "4", *flags)
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr) == (0, "")
    assert result["targets"][0]["groups"]["all"]["ok"] == 4


def test_https_without_a_trusted_certificate_is_refused(tmp_path: Path) -> None:
    with fake_server(SHORT, listener=tls_listener(tmp_path)) as (url, _):
        run = bench("--url", url.replace("http://127.0.0.1", "https://localhost"), "--requests", "1")
    assert (run.returncode, run.stdout) == (2, "")
    assert "certificate verify failed" in run.stderr
    assert "--ca FILE or --insecure" in run.stderr


@pytest.mark.parametrize(
    ("writes", "kind"),
    [
        ([HEAD, chunk(data(DELTA))], "closed"),
        ([], "closed"),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"], "http 503"),
        ([HEAD + chunk(data({"type": "response.failed"})) + LAST], "failed"),
        ([b"no HTTP\r\n\r\n"], "protocol"),
    ],
)
def test_errors_are_counted_by_kind(writes: list[bytes], kind: str) -> None:
    with fake_server(writes) as (url, _):
        run = bench("--url", url, "--requests", "2", "--warmup", "0")
    figures = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"]["all"]
    assert run.returncode == 1
    assert (figures["ok"], figures["errors_by_kind"]) == (0, {kind: 2})
    assert f"         2 errors                      {kind}: 2; 0 requests went well" in run.stdout


def test_server_that_is_gone_is_a_connect_error() -> None:
    with fake_server(SHORT) as (url, _):
        endpoint = Endpoint(url)
        endpoint.resolve()
    [recording] = StreamClient(endpoint).play([REQUEST], 1)
    assert (recording.error_kind, recording.error) == ("connect", "connection: Connection refused")


def test_stream_without_data_stalls() -> None:
    with fake_server([HEAD, chunk(data(DONE)) + LAST], gap=1.5) as (url, _):
        endpoint = Endpoint(url)
        endpoint.resolve()
        [recording] = StreamClient(endpoint, stall=0.5).play([REQUEST], 1)
    assert (recording.error_kind, recording.error) == ("stall", "no data came for 0.5 s")


def test_drop_hangs_up() -> None:
    with fake_server(FLOWING, gap=0.01) as (url, server):
        endpoint = Endpoint(url)
        endpoint.resolve()
        client = StreamClient(endpoint)
        recording = client.start(REQUEST)
        client.read_until(recording, lambda each: bool(parse(each).deltas))
        client.drop(recording)
        time.sleep(0.1)
    assert (parse(recording).status, server.cut_off) == ("dropped", 1)


class Written:
    """A stream that is a terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        self.text = ""
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_progress_line_has_rate_and_time_left() -> None:
    client = StreamClient(Endpoint("127.0.0.1:1"))
    progress = ProgressLine(2, Expected(requests=40), Written(terminal=True))
    begin = time.perf_counter()
    progress.begin("round 1 of 2, a", client)
    client.ended, client.reads = 10, 500
    line = progress.line(begin + 5.0)
    assert line == "bench: round 1 of 2, a: 10 of 40 requests, 2.0 requests/s, 100 reads/s, 0:35 left"


def test_progress_of_unknown_parts_learns_from_the_first() -> None:
    client = StreamClient(Endpoint("127.0.0.1:1"))
    progress = ProgressLine(3, Expected(), Written(terminal=True))
    progress.begin("round 1", client)
    client.ended = 8
    assert progress.line(time.perf_counter() + 4.0).endswith("time left unknown")
    progress.end()
    progress.begin("round 2", client)
    client.ended = 12
    assert ": 4 of 8 requests, " in progress.line(time.perf_counter() + 4.0)


def test_progress_is_a_line_that_the_terminal_rewrites() -> None:
    written = Written(terminal=True)
    client = StreamClient(Endpoint("127.0.0.1:1"))
    progress = ProgressLine(1, Expected(seconds=10), written)
    progress.begin("a", client)
    time.sleep(0.6)
    progress.tick()
    progress.tick()
    assert written.text.count("bench: a:") == 1
    progress.close()
    assert written.text.rpartition("left")[2].strip(" \r") == ""


def test_progress_in_a_file_is_silent_in_a_short_run() -> None:
    written = Written(terminal=False)
    progress = ProgressLine(1, Expected(), written)
    progress.begin("a", StreamClient(Endpoint("127.0.0.1:1")))
    progress.tick()
    progress.close()
    assert written.text == ""
