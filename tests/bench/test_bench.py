"""The bench: its arithmetic by tables, and runs against a server that splits its chunks at inconvenient places."""

import argparse
import json
import socket

import pytest
from answer import TimedAnswer, frames, parse
from client import Recording
from report import Group, percentile, ratio_table, ratios, summarize, table
from target import base_of
from texts import Texts

from tests.bench.fake_server import (
    CACHED_TOKENS,
    DELTA,
    DONE,
    HEAD,
    INPUT_TOKENS,
    LAST,
    SHORT,
    bench,
    chunk,
    data,
    fake_server,
)

pytestmark = pytest.mark.slow


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
def test_frames_have_the_time_of_their_blank_line(lines: list[bytes], expected: list[tuple[float, str]]) -> None:
    assert list(frames((float(time), line) for time, line in enumerate(lines))) == expected


def pieces(raw: bytes, size: int) -> list[tuple[float, bytes]]:
    return [(10.0 + at, raw[at : at + size]) for at in range(0, len(raw), size)]


WHOLE = HEAD + chunk(data(DELTA)) + chunk(data(DELTA, DELTA, DONE)) + LAST


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(WHOLE)])
def test_parse_of_any_split_equals_the_whole(size: int) -> None:
    answer = parse(Recording(start=9.0, reads=pieces(WHOLE, size)))
    assert (len(answer.deltas), answer.tokens, answer.error) == (3, 3, "")
    assert answer.first_byte == 1.0
    assert answer.end is not None
    assert answer.deltas == sorted(answer.deltas)


def test_parse_takes_times_from_the_reads() -> None:
    reads = [(1.0, HEAD), (2.0, chunk(data(DELTA))), (4.0, chunk(data(DELTA, DELTA)))]
    reads += [(7.0, chunk(data(DONE)) + LAST)]
    assert parse(Recording(start=0.5, reads=reads)) == TimedAnswer(
        first_byte=0.5,
        deltas=[1.5, 3.5, 3.5],
        end=6.5,
        tokens=3,
        input_tokens=INPUT_TOKENS,
        cached_tokens=CACHED_TOKENS,
        text="xxx",
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
def test_parse_of_a_broken_response_sets_the_error(raw: bytes, error: str) -> None:
    reads = [(1.0, raw)] if raw else []
    assert parse(Recording(start=0.0, reads=reads)).error.startswith(error)


@pytest.mark.parametrize(
    "raw", [HEAD + chunk(data(DELTA)), HEAD + chunk(data(DELTA))[:-9], HEAD + chunk(data(DELTA)) + LAST]
)
def test_parse_of_a_dropped_response_returns_its_beginning(raw: bytes) -> None:
    answer = parse(Recording(start=0.0, reads=[(1.0, raw)], dropped=True))
    assert answer.error == ""
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
    assert TimedAnswer(deltas=[1.0, 2.0, 3.0, 7.0]).between(begin, end).deltas == expected


def test_parse_of_http_1_0_without_usage_counts_deltas() -> None:
    raw = b"HTTP/1.0 200 OK\r\n\r\n" + data(DELTA, DELTA, {"type": "response.incomplete"})
    answer = parse(Recording(start=0.0, reads=[(1.0, raw)]))
    assert (answer.tokens, answer.counted, answer.error) == (2, True, "")


def test_table_of_answers_is_exact() -> None:
    answers = [
        TimedAnswer(first_byte=0.1, deltas=[0.2, 0.3, 0.5], end=0.6, tokens=5, input_tokens=80, cached_tokens=60),
        TimedAnswer(first_byte=0.3, error="HTTP 503: busy"),
    ]
    one = {"n": 1, "p50": 0.0, "p90": 0.0, "p99": 0.0}
    figures = summarize(Group(answers, wall=2.0))
    assert figures == {
        "ok": 1,
        "errors": 1,
        "first_error": "HTTP 503: busy",
        "wall_s": 2.0,
        "input_tokens": 80,
        "cached_share": 0.75,
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


def test_table_without_successful_answers_is_exact() -> None:
    figures = summarize(Group([TimedAnswer(error="no")]))
    assert (figures["ttft_ms"]["p50"], figures["output_tokens_per_s"]) == (None, None)
    assert "-" in table(figures)


def test_summarize_adds_up_rounds() -> None:
    part = Group()
    for end in (1.0, 2.0):
        part += Group([TimedAnswer(deltas=[0.5], end=end, tokens=4)], wall=end, measures=("e2e",))
    figures = summarize(part)
    assert (figures["ok"], figures["wall_s"], figures["output_tokens_per_s"]) == (2, 3.0, 2.667)
    assert [name for name in figures if name.endswith("_ms")] == ["e2e_ms"]
    assert figures["e2e_ms"]["p50"] == 1500.0


def test_ratios_divide_ours_by_theirs() -> None:
    ours = {"ttft_ms": {"n": 3, "p50": 1.0, "p90": 2.0, "p99": 3.0}, "itl_ms": {}, "cached_share": 0.6}
    theirs = {"ttft_ms": {"n": 9, "p50": 4.0, "p90": 2.0, "p99": None}, "cached_share": 0.8}
    found = ratios(ours | {"output_tokens_per_s": 30.0, "errors": 0}, theirs | {"output_tokens_per_s": 20.0})
    assert found == {
        "ttft_ms": {"p50": 0.25, "p90": 1.0, "p99": None}, "cached_share": 0.75, "output_tokens_per_s": 1.5
    }  # fmt: skip
    assert ratio_table({"all": found}).splitlines()[1:] == [
        "all ttft                          0.250       1.00          -",
        "all cached_share                  0.750",
        "all output_tokens_per_s            1.50",
    ]


def test_texts_of_a_seed_repeat_and_differ_from_the_first_word() -> None:
    texts, again = Texts(3), Texts(3)
    drawn = [texts.prompt(8) for _ in range(50)]
    assert drawn == [again.prompt(8) for _ in range(50)]
    assert len({text.split()[0] for text in drawn}) == 50
    assert len(texts.words(450).split()) == 450


@pytest.mark.parametrize("url", ["http://a:8080", "http://a:8080/", "http://a:8080/v1", "http://a:8080/v1/"])
def test_base_of_a_url_with_v1_is_its_base(url: str) -> None:
    assert base_of(url).geturl() == "http://a:8080"


def test_run_ends_with_one_json_line() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", f"{url}/v1/", "--requests", "3", "--concurrency", "2", "--tokens", "7", "--rounds", "2")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr) == (0, "")
    figures = result["parts"]["all"]
    assert (result["model"], result["errors"]) == ("tiny", 0)
    assert [figures[key] for key in ("ok", "errors", "output_tokens")] == [6, 0, 18]
    counts = [figures[f"{name}_ms"]["n"] for name in ("first_byte", "ttft", "itl", "tpot", "e2e")]
    assert counts == [6, 6, 12, 6, 6]
    assert len(server.requests) == 7  # the warm-up is one of them
    assert len({body.pop("input") for body in server.requests}) == 7
    assert server.requests[0] == {"model": "tiny", "max_output_tokens": 7, "stream": True}


def test_run_with_flags_sends_fields_that_clients_leave_out() -> None:
    with fake_server(SHORT) as (url, server):
        bench("--url", url, "--requests", "1", "--warmup", "0", "--no-store", "--temperature", "0")
    [body] = server.requests
    assert (body["store"], body["temperature"]) == (False, 0)


def test_run_against_two_servers_alternates_and_compares() -> None:
    slow = [HEAD, *[chunk(data(DELTA))] * 3, chunk(data(DONE)), LAST]
    with fake_server(slow, gap=0.02) as (url, ours), fake_server(slow) as (other, theirs):
        run = bench("--url", url, "--vs", other, "--requests", "2", "--rounds", "2")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr) == (0, "")
    assert ours.requests == theirs.requests
    assert result["parts"]["all"]["ok"] == result["vs_parts"]["all"]["ok"] == 4
    assert result["ratios"]["all"]["ttft_ms"]["p50"] > 1 > result["ratios"]["all"]["output_tokens_per_s"]
    assert f"{url} / {other}\n" in run.stdout


def test_peer_gets_its_parameters() -> None:
    pytest.importorskip("xllamacpp")
    import peer

    flags = argparse.Namespace(model="m.gguf", host="127.0.0.1", port=0, threads=2, slots=8, context=32768)
    params = peer.params(flags)
    assert (params.model.path, params.n_parallel, params.n_ctx) == ("m.gguf", 8, 32768)
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (2, 2)


def test_run_against_a_refusing_server_reports_and_fails() -> None:
    with fake_server([b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"]) as (url, _):
        run = bench("--url", url, "--model", "tiny", "--requests", "2", "--warmup", "0")
    assert run.returncode == 1
    assert "first error: HTTP 503: busy" in run.stdout
    assert json.loads(run.stdout.splitlines()[-1])["errors"] == 2


@pytest.mark.parametrize("extra", [[], ["--model", "tiny"]])
def test_run_without_a_server_prints_one_line_and_exits_2(extra: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    run = bench("--url", url, *extra)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"bench: {url}: [Errno 111] Connection refused\n"
