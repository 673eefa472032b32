"""CSV, Markdown, and the files of a run."""

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from record import Record
from reports import files
from reports.csv_and_markdown import HEAD, csv_text, markdown

from tests.bench.reports.sample import records, result

FIGURES = {
    "ok": 3,
    "output_tokens_are_deltas": False,
    "requests_per_s": 1.5,
    "ttft_ms": {"n": 3, "mean": 2.0, "p50": 2.0, "p90": None, "p95": None, "p99": None, "max": 3000.0},
    "noise": {"ttft_ms": {"rounds": 2, "min": 1.0, "median": 2.0, "max": 3.0}},
}
SMALL: dict[str, Any] = {
    "environment": {"machine": {"cpu": "N100"}, "servers": [{"version": "1"}]},
    "settings": {"seed": 7},
    "targets": [{"url": "http://a|b", "model": "m", "groups": {"all": FIGURES}}],
}


def test_csv_has_a_line_for_each_figure() -> None:
    assert csv_text(SMALL).splitlines() == [
        ",".join(HEAD),
        "http://a|b,m,all,ok,3,,,,,,,,,,",
        "http://a|b,m,all,requests_per_s,1.5,,,,,,,,,,",
        "http://a|b,m,all,ttft_ms,,3,2.0,2.0,,,,3000.0,1.0,2.0,3.0",
    ]


def test_csv_of_a_run_can_be_read_back() -> None:
    whole = result(records(), 2)
    rows = list(csv.DictReader(io.StringIO(csv_text(whole))))
    [row] = [row for row in rows if row["url"].endswith("8791") and row["figure"] == "itl_ms"]
    assert float(row["p50"]) == whole["targets"][1]["groups"]["all"]["itl_ms"]["p50"]


def test_markdown_is_exact() -> None:
    assert markdown(SMALL) == (
        "| server | group | ms | n | mean | p50 | p90 | p95 | p99 | max | rounds' p50 |\n"
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| a\\|b | all | ttft | 3 | 2.00 | 2.00 | - | - | - | 3,000 | 1.00 to 3.00 |\n"
        "\n"
        "| server | group | figure | value | rounds |\n"
        "| --- | --- | --- | ---: | ---: |\n"
        "| a\\|b | all | ok | 3 | - |\n"
        "| a\\|b | all | requests_per_s | 1.50 | - |\n"
    )


def flags(**given: Path) -> argparse.Namespace:
    none = dict.fromkeys(("json", "csv", "markdown", "report", "out"))
    return argparse.Namespace(**none | given)


@pytest.mark.slow
def test_files_are_written_and_records_read_back(tmp_path: Path) -> None:
    found = records()
    whole = result(found, 2)
    args = flags(
        json=tmp_path / "a.json",
        csv=tmp_path / "a.csv",
        markdown=tmp_path / "a.md",
        report=tmp_path / "a.html",
        out=tmp_path / "new" / "out",
    )
    files.check(args)
    files.write(args, whole, found)
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(whole))
    assert json.loads((args.out / "result.json").read_text()) == json.loads(json.dumps(whole))
    assert (tmp_path / "a.csv").read_text() == csv_text(whole)
    assert (tmp_path / "a.md").read_text() == markdown(whole)
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    lines = (args.out / "records.jsonl").read_text().splitlines()
    assert [Record.from_json(line) for line in lines] == found


def test_line_of_a_record_has_the_facts_of_its_run() -> None:
    [line] = files.lines(SMALL, [Record()])
    assert json.loads(line)["run"] == {
        "url": "http://a|b",
        "model": "m",
        "seed": 7,
        "date": None,
        "machine": {"cpu": "N100"},
        "server": {"version": "1"},
    }


def test_check_finds_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "records.jsonl").touch()
    (tmp_path / "file").touch()
    cases = [
        (flags(json=tmp_path / "none" / "a.json"), "there is no folder .*none, for a.json"),
        (flags(report=tmp_path), "is a folder, not a file"),
        (flags(out=tmp_path / "full"), "has the records of another run; name another folder for --out"),
        (flags(out=tmp_path / "file" / "out"), "cannot be made: Not a directory"),
    ]
    for args, message in cases:
        with pytest.raises(ValueError, match=message):
            files.check(args)


def test_format_without_a_file_replaces_the_tables() -> None:
    assert not files.tables_replaced(flags())
    assert files.tables_replaced(flags(csv=files.STDOUT))
    assert files.replacement(flags(csv=files.STDOUT), SMALL) == csv_text(SMALL)
    assert files.replacement(flags(json=files.STDOUT), SMALL) == ""
