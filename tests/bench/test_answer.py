"""Recordings to records, at any split of the bytes."""

from typing import Any

import pytest
from answer import between, frames, parse
from client import Recording
from record import Record

from tests.bench.fake_server import CACHED_TOKENS, DELTA, DONE, HEAD, INPUT_TOKENS, LAST, chunk, data


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
def test_frames_have_the_time_of_their_blank_line(lines: list[bytes], expected: list[tuple[float, str]]) -> None:
    assert list(frames((float(time), line) for time, line in enumerate(lines))) == expected


def pieces(raw: bytes, size: int) -> list[tuple[float, bytes]]:
    return [(10.0 + at, raw[at : at + size]) for at in range(0, len(raw), size)]


WHOLE = HEAD + chunk(data(DELTA)) + chunk(data(DELTA, DELTA, DONE)) + LAST


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(WHOLE)])
def test_parse_of_any_split_equals_the_whole(size: int) -> None:
    answer = parse(Recording(start=9.0, reads=pieces(WHOLE, size)))
    assert (len(answer.deltas), answer.output_tokens, answer.error) == (3, 3, "")
    assert answer.first_byte == 1.0
    assert answer.end is not None
    assert answer.deltas == sorted(answer.deltas)


def test_parse_takes_times_from_the_reads() -> None:
    reads = [(1.0, HEAD), (2.0, chunk(data(DELTA))), (4.0, chunk(data(DELTA, DELTA)))]
    reads += [(7.0, chunk(data(DONE)) + LAST)]
    assert parse(Recording(start=0.5, reads=reads)) == Record(
        start=0.5,
        first_byte=0.5,
        deltas=[1.5, 3.5, 3.5],
        end=6.5,
        output_tokens=3,
        input_tokens=INPUT_TOKENS,
        cached_tokens=CACHED_TOKENS,
        status="completed",
    )


@pytest.mark.parametrize(
    ("raw", "error", "kind"),
    [
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 4\r\n\r\noops", "HTTP 400: oops", "http 400"),
        (HEAD + chunk(data(DELTA)) + LAST, "the stream ended without a terminal event", "protocol"),
        (HEAD + chunk(data(DELTA))[:-9], "unreadable answer: IncompleteRead", "closed"),
        (HEAD + chunk(b"data: {\n\n") + LAST, "unreadable answer: JSONDecodeError", "protocol"),
        (HEAD + chunk(data({"type": "response.failed"})) + LAST, '{"type": "response.failed"}', "failed"),
        (HEAD + chunk(data({"error": {"code": 500}})) + LAST, '{"error": {"code": 500}}', "failed"),
        (b"", "unreadable answer: RemoteDisconnected", "closed"),
    ],
)
def test_parse_of_a_broken_response_sets_the_error(raw: bytes, error: str, kind: str) -> None:
    reads = [(1.0, raw)] if raw else []
    record = parse(Recording(start=0.0, reads=reads))
    assert (record.error.startswith(error), record.error_kind) == (True, kind)


@pytest.mark.parametrize(
    "raw", [HEAD + chunk(data(DELTA)), HEAD + chunk(data(DELTA))[:-9], HEAD + chunk(data(DELTA)) + LAST]
)
def test_parse_of_a_dropped_response_returns_its_beginning(raw: bytes) -> None:
    answer = parse(Recording(start=0.0, reads=[(1.0, raw)], dropped=True))
    assert (answer.error, answer.status) == ("", "dropped")
    assert answer.text in {"", "x"}


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (0.0, 9.0, [1.0, 2.0, 3.0, 7.0]),
        (1.5, 2.5, [1.0, 2.0, 3.0]),
        (4.0, 5.0, [3.0, 7.0]),
        (2.0, 3.0, [1.0, 2.0, 3.0]),
        (8.0, 9.0, [7.0]),
    ],
)
def test_between_includes_gaps_that_cross_the_border(begin: float, end: float, expected: list[float]) -> None:
    assert between(Record(deltas=[1.0, 2.0, 3.0, 7.0]), begin, end).deltas == expected


def test_parse_of_http_1_0_without_usage_counts_deltas() -> None:
    raw = b"HTTP/1.0 200 OK\r\n\r\n" + data(DELTA, DELTA, {"type": "response.incomplete"})
    answer = parse(Recording(start=0.0, reads=[(1.0, raw)]))
    assert (answer.output_tokens, answer.counted, answer.error) == (2, True, "")


CHAT = (
    {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]},
    {"choices": [{"delta": {}, "finish_reason": "length"}]},
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    },
)
LEGACY = (
    {"choices": [{"text": "a", "finish_reason": None}]},
    {"choices": [{"text": "b", "finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (
            CHAT,
            Record(
                first_byte=0.0,
                deltas=[2.0, 3.0],
                end=4.0,
                input_tokens=9,
                cached_tokens=4,
                output_tokens=2,
                status="incomplete",
            ),
        ),
        (
            LEGACY,
            Record(first_byte=0.0, deltas=[1.0, 2.0], end=2.0, input_tokens=9, output_tokens=2, status="completed"),
        ),
    ],
)
def test_parse_of_chunks_reads_them_like_events(chunks: tuple[dict[str, Any], ...], expected: Record) -> None:
    reads = [(0.0, HEAD), *((1.0 + at, chunk(data(each))) for at, each in enumerate(chunks))]
    done = chunk(b"data: [DONE]\n\n") + LAST
    assert parse(Recording(start=0.0, reads=[*reads, (9.0, done)])) == expected


@pytest.mark.parametrize(
    ("kind", "counted"), [("response.reasoning_text.delta", 1), ("response.reasoning_summary_text.delta", 0)]
)
def test_parse_counts_deltas_of_tokens_only(kind: str, counted: int) -> None:
    raw = HEAD + chunk(data({"type": kind, "delta": "x"}, DONE)) + LAST
    assert len(parse(Recording(start=0.0, reads=[(1.0, raw)])).deltas) == counted
