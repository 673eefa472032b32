"""SIGTERM: running streams end, waiting requests are refused, and the process ends in time."""

import http.client
import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import wire
from tests.support.helpers import types
from tests.support.processes import Daemon, serving
from tests.system.test_daemon import MODEL, STORY

pytestmark = pytest.mark.slow


@contextmanager
def streaming(daemon: Daemon, **body: Any) -> Iterator[http.client.HTTPResponse]:
    """A stream whose first text has come."""
    connection = daemon.connection()
    fields = {"model": MODEL, "input": STORY, "stream": True, "temperature": 0} | body
    connection.request("POST", "/v1/responses", json.dumps(fields), {"Content-Type": "application/json"})
    with connection.getresponse() as answer:
        yield answer
    connection.close()


def opening(answer: http.client.HTTPResponse) -> bytes:
    """The stream up to its first delta, which lets the test know that the model is at work."""
    lines: list[bytes] = []
    while not (lines and lines[-1].startswith(b'data: {"type":"response.output_text.delta"')):
        lines.append(answer.readline())
    return b"".join(lines)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_stream_within_the_shutdown_timeout_completes(end: signal.Signals, tiny: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", str(tiny), "--alias", MODEL) as daemon:
        with streaming(daemon, max_output_tokens=30) as answer:
            begun = opening(answer)
            daemon.process.send_signal(end)
            events = wire.events(begun + answer.read())
        assert daemon.wait() == 0
        assert daemon.message() == "STOPPING=1\nSTATUS=waiting for streams to end"
    assert events[-1]["response"]["usage"]["output_tokens"] == 30
    *_, signalled, answered, stopped = daemon.log.read_text().splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.\d{3}Z"
    assert re.fullmatch(rf"{time} INFO responsed: {end.name}: streams in progress have 10 s to end", signalled)
    line = (
        r"resp_\w+ req_\w+ 127\.0\.0\.1 /v1/responses stream incomplete \(max_output_tokens\): queue \d+ ms, "
        r"first token \d+ ms, in \d+ \(cached \d+\), out 30, [\d.]+ tokens/s, \d+ ms"
    )
    assert re.fullmatch(rf"{time} INFO responsed.http: {line}", answered)
    assert re.fullmatch(rf"{time} INFO responsed: stopped", stopped)


def test_stream_beyond_the_shutdown_timeout_fails(tiny: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", str(tiny), "--alias", MODEL, "--shutdown-timeout", "0.5") as daemon:
        with streaming(daemon) as answer, streaming(daemon) as other, streaming(daemon) as waiting:
            begun = [opening(answer), opening(other), b""]
            daemon.process.terminate()
            streams = [
                wire.events(start + stream.read())
                for start, stream in zip(begun, (answer, other, waiting), strict=True)
            ]
        assert daemon.wait() == 0
    assert [types(events)[-2:] for events in streams] == [["error", "response.failed"]] * 3
    assert "Traceback" not in daemon.log.read_text()


def test_daemon_at_a_second_signal_ends_at_once(tiny: Path, tmp_path: Path) -> None:
    flags = ["--model", str(tiny), "--alias", MODEL, "--shutdown-timeout", "600"]
    with serving(tmp_path, *flags) as daemon, streaming(daemon) as answer:
        opening(answer)
        daemon.process.terminate()
        assert daemon.message().startswith("STOPPING=1")
        daemon.process.terminate()
        assert daemon.wait() == -signal.SIGTERM
    assert "Traceback" not in daemon.log.read_text()
