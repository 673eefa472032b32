"""The files and the comparison of a run, by the command as a user starts it."""

import csv
import json
from pathlib import Path

import pytest
from record import Record

from tests.bench.fake_server import DELTA, DONE, HEAD, LAST, SHORT, bench, chunk, data, fake_server

pytestmark = pytest.mark.slow

LOAD = ("--requests", "3", "--rounds", "2", "--model", "tiny", "--quiet")


def test_run_writes_all_files(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"a.{name}" for name in ("json", "csv", "markdown", "report")}
    flags = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
    with fake_server(SHORT) as (url, _):
        run = bench("--url", url, *LOAD, *flags, "--out", str(tmp_path / "out"))
        again = bench("--url", url, *LOAD, "--out", str(tmp_path / "out"))
        trace = tmp_path / "out" / "records.jsonl"
        replayed = bench("--url", url, "--model", "tiny", "--replay", str(trace), "--quiet")
    assert (run.returncode, run.stderr) == (0, "")
    result = json.loads(run.stdout.splitlines()[-1])
    assert json.loads(paths["json"].read_text()) == result
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    records = [Record.from_json(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert [(record.round, record.output_tokens) for record in records] == [(0, 3)] * 3 + [(1, 3)] * 3
    assert records[0].start < records[-1].start
    [ok] = [row for row in csv.DictReader(paths["csv"].read_text().splitlines()) if row["figure"] == "ok"]
    assert (ok["url"], ok["value"]) == (url, "6")
    assert "| ttft | 6 |" in paths["markdown"].read_text()
    assert 'id="ttft-over-time"' in paths["report"].read_text()
    assert (again.returncode, again.stdout) == (2, "")
    assert json.loads(replayed.stdout.splitlines()[-1])["targets"][0]["groups"]["all"]["ok"] == 6
    assert again.stderr.endswith("has the records of another run; name another folder for --out\n")


def test_result_has_the_machine_the_servers_and_the_noise() -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--url", url, *LOAD)
    result = json.loads(run.stdout.splitlines()[-1])
    environment = result["environment"]
    assert environment["machine"]["cores"] > 0
    assert environment["machine"]["runs_servers"]
    assert environment["servers"] == [{"version": None, "engine": None, "model_hash": None, "model": {"id": "tiny"}}]
    assert set(environment["load"]) >= {"busy_before", "waiting_before", "stolen_during", "load_average", "busy"}
    assert result["targets"][0]["groups"]["all"]["noise"]["ttft_ms"]["rounds"] == 2
    assert "noise: medians of the rounds" in run.stdout
    assert "versions: " in run.stdout
    assert [sentence in run.stdout for sentence in environment["load"]["busy"]] == [True] * len(
        environment["load"]["busy"]
    )


@pytest.mark.parametrize(("flag", "head"), [("--csv", "url,model,group"), ("--markdown", "| server | group |")])
def test_format_without_a_file_replaces_the_tables_before_the_last_line(flag: str, head: str) -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--url", url, *LOAD, flag)
    lines = run.stdout.splitlines()
    assert (run.returncode, run.stderr) == (0, "")
    assert lines[0].startswith(head)
    assert json.loads(lines[-1])["errors"] == 0
    assert "formula" not in run.stdout


def test_json_without_a_file_prints_only_the_last_line() -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--url", url, *LOAD, "--json")
    [line] = run.stdout.splitlines()
    assert json.loads(line)["schema"] == 1


def test_comparison_past_the_budget_fails(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    slow = [HEAD, *[chunk(data(DELTA))] * 3, chunk(data(DONE)), LAST]
    with fake_server(slow, gap=0.03) as (url, _):
        bench("--url", url, *LOAD, "--json", str(old))
    with fake_server(slow, gap=0.15) as (url, _):
        worse = bench("--url", url, *LOAD, "--compare", str(old), "--budget", "50%")
        printed = bench("--url", url, *LOAD, "--compare", str(old), "--csv")
    assert (worse.returncode, worse.stderr) == (1, "")
    assert "past the budget" in worse.stdout
    comparison = json.loads(worse.stdout.splitlines()[-1])["comparison"]
    assert comparison["past_budget"] > 3
    assert {change["figure"] for change in comparison["changes"]} >= {"ttft_ms", "itl_ms", "output_tokens_per_s"}
    assert printed.returncode == 0
    assert printed.stderr.startswith("compared with ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "5"], "--budget needs --compare OLD.json"),
        (["--compare", "/none.json"], "/none.json cannot be read: No such file or directory"),
        (["--report", "/none/a.html"], "there is no folder /none, for a.html"),
        (["--budget", "x"], "argument --budget: must be percent, such as 5 or 5%, not 'x'"),
    ],
)
def test_wrong_flags_are_found_before_the_run(flags: list[str], message: str) -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--url", url, *LOAD, *flags)
    assert run.returncode == 2
    assert message in run.stderr
    assert server.requests == []
