"""The bench's command against a server that splits its chunks at inconvenient places."""

import argparse
import json
import socket
import sys

import pytest
from texts import Texts

from tests.bench.fake_server import DELTA, DONE, HEAD, LAST, SHORT, bench, chunk, data, fake_server

pytestmark = pytest.mark.slow


def test_texts_of_a_seed_repeat_and_differ_from_the_first_word() -> None:
    texts, again = Texts(3), Texts(3)
    drawn = [texts.prompt(8) for _ in range(50)]
    assert drawn == [again.prompt(8) for _ in range(50)]
    assert len({text.split()[0] for text in drawn}) == 50
    assert len(texts.words(450).split()) == 450


def test_run_ends_with_one_json_line() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", f"{url}/v1/", "--requests", "3", "--concurrency", "2", "--tokens", "7", "--rounds", "2")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr) == (0, "")
    figures = result["targets"][0]["groups"]["all"]
    assert (result["targets"][0]["model"], result["errors"]) == ("tiny", 0)
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
        run = bench("--url", url, "--vs", other, "--requests", "3", "--rounds", "2")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr) == (0, "")
    assert ours.requests == theirs.requests
    assert [target["groups"]["all"]["ok"] for target in result["targets"]] == [6, 6]
    ratios = result["ratios"]["all"]
    assert ratios["ttft_ms"]["p50"]["ratio"] > 1 > ratios["output_tokens_per_s"]["ratio"]
    interval = ratios["ttft_ms"]["p50"]
    assert interval["low"] <= interval["ratio"] <= interval["high"]
    assert f"{url} / {other}\n" in run.stdout


def test_peer_gets_its_parameters() -> None:
    pytest.importorskip("xllamacpp")
    import peer

    flags = argparse.Namespace(
        model="m.gguf", host="127.0.0.1", port=0, threads=2, slots=8, context=32768, chat_template=None,
        reasoning_budget=-1,
    )  # fmt: skip
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
    assert run.stderr == f"bench: {url}: Connection refused; start the server, or correct the address\n"


def test_paced_server_sends_as_many_deltas_as_asked() -> None:
    command = f"{sys.executable} bench/hotpath/paced.py --rate 500 --port {{port}}"
    run = bench("--serve", command, "--api", "chat", "--requests", "2", "--concurrency", "2", "--tokens", "5")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, result["targets"][0]["model"], result["errors"]) == (0, "paced", 0)
    figures = result["targets"][0]["groups"]["all"]
    assert [figures["output_tokens"], figures["itl_ms"]["n"]] == [10, 8]
