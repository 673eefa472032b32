"""The log: text with times, lines for the journal, and JSON."""

import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from engine.job import Lane
from server.cli.console import logs
from server.generation import EarlierPrompt, GenerationSummary, Origin
from server.generation.summary import summarize
from server.generation.timings import Timings
from server.protocol.response import Response

log = logging.getLogger("responsed.test")
RESPONSE = Response(id="resp_x", created_at=1, model="m", temperature=0.8, top_p=0.95)
SUMMARY = GenerationSummary(
    "resp_1",
    Origin("req_1", "ann", "/v1/responses", "ann", ("a\nb",)),
    "stream",
    Lane.INTERACTIVE,
    "completed",
    queue=0.0015,
    duration=2.0,
    tools=0.0,
    first_token=0.25,
    gaps=[0.1, 0.4],
    jobs=1,
    input_tokens=30,
    cached_tokens=20,
    evicted_tokens=8,
    cache_miss="evicted",
    output_tokens=11,
)
LINE = (
    "resp_1 req_1 ann /v1/responses stream completed: queue 2 ms, first token 250 ms, in 30 (cached 20, evicted 8), "
    "out 11, 20.0 tokens/s, 2000 ms; skipped: 'a\\nb'"
)


@contextmanager
def writing(kind: str, environ: Mapping[str, str], stream: TextIO) -> Iterator[None]:
    """Send records of `log` from level INFO on to a stream."""
    handler = logs.make_handler(kind, environ, stream)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def write_two() -> None:
    log.debug("unseen")
    log.info("first")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("second")


def test_text_log_begins_with_the_time_in_utc() -> None:
    stream = io.StringIO()
    with writing("text", {}, stream):
        write_two()
    first, second, *rest = stream.getvalue().splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{time} INFO responsed.test: first", first)
    assert re.fullmatch(rf"{time} ERROR responsed.test: second", second)
    assert (rest[0], rest[-1]) == ("Traceback (most recent call last):", "ValueError: why")


def test_log_in_the_journal_has_a_priority_on_each_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as stream:
        status = os.fstat(stream.fileno())
        with writing("text", {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, stream):
            write_two()
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[:2] == ["<6>responsed.test: first", "<3>responsed.test: second"]
    assert all(line.startswith("<3>") for line in lines[1:])


@pytest.mark.parametrize("value", ["", "1", "1:2", "x:y"])
def test_log_elsewhere_has_no_priority(value: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as stream:
        with writing("text", {"JOURNAL_STREAM": value}, stream):
            log.info("first")
        stream.seek(0)
        assert not stream.read().startswith("<")


def test_json_log_is_an_object_a_line() -> None:
    stream = io.StringIO()
    with writing("json", {}, stream):
        write_two()
        log.info(SUMMARY.line(), extra={"summary": SUMMARY})
    first, second, answer = map(json.loads, stream.getvalue().splitlines())
    assert {**first, "time": 0} == {"time": 0, "level": "info", "logger": "responsed.test", "message": "first"}
    assert second["traceback"].endswith("ValueError: why")
    assert answer["message"] == LINE
    assert answer["answer"]["origin"] == {
        "request_id": "req_1",
        "client": "ann",
        "route": "/v1/responses",
        "key": "ann",
        "skipped": ["a\nb"],
        "trace_id": "",
        "client_request_id": "",
        "transport": "",
    }
    del answer["answer"]["origin"]
    assert answer["answer"] == {
        "response_id": "resp_1",
        "mode": "stream",
        "lane": "interactive",
        "outcome": "completed",
        "queue": 0.0015,
        "duration": 2.0,
        "tools": 0.0,
        "first_token": 0.25,
        "jobs": 1,
        "input_tokens": 30,
        "cached_tokens": 20,
        "evicted_tokens": 8,
        "output_tokens": 11,
        "cache_miss": "evicted",
        "cache_miss_place": "",
        "arrivals": 2,
        "mean_gap": 0.25,
        "longest_gap": 0.4,
        "tokens_per_second": 20.0,
    }


@pytest.mark.parametrize(
    ("arrivals", "queue", "first", "gaps"),
    [
        ([], 9.0, None, []),
        ([(2.0, 1.5, False)], 0.5, None, []),
        ([(2.0, None, False), (9.0, 8.0, True)], 7.0, 8.0, []),
        ([(2.0, 1.0, True), (2.5, 1.0, True), (3.0, 1.0, False), (3.25, 1.0, True)], 0.0, 1.0, [0.5, 0.75]),
    ],
)
def test_timings_measure_queue_first_token_and_gaps(
    arrivals: list[tuple[float, float | None, bool]], queue: float, first: float | None, gaps: list[float]
) -> None:
    timings = Timings(1.0)
    for now, slot_since, has_tokens in arrivals:
        timings.record(now, slot_since, has_tokens)
    found = summarize(RESPONSE, Origin("req_1", "ann", "/v1/responses"), timings, "whole", "", EarlierPrompt(), 10.0)
    assert (found.queue, found.first_token, found.gaps, found.duration) == (queue, first, gaps, 9.0)


def test_timings_of_later_jobs_leave_the_queue_time() -> None:
    """A response that calls MCP tools gets a slot for each of its jobs."""
    timings = Timings(0.0)
    for now, slot_since, has_tokens in [(1.0, 0.5, True), (5.0, None, False), (6.0, 5.5, True)]:
        timings.record(now, slot_since, has_tokens)
    assert (timings.started, timings.first_token) == (0.5, 1.0)


@pytest.mark.parametrize(("level", "enabled"), [("info", False), ("debug", True)])
def test_requests_to_mcp_servers_are_in_the_debug_log_only(level: str, enabled: bool) -> None:
    client = logging.getLogger("httpx2")
    client.setLevel(logging.NOTSET)
    root = logging.getLogger()
    before = root.level
    root.setLevel(level.upper())
    try:
        logs.configure_logs(level, "text")
        assert client.isEnabledFor(logging.INFO) == enabled
    finally:
        root.setLevel(before)
        client.setLevel(logging.NOTSET)
