"""The files that a run leaves: its result, its records, tables and the page."""

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from record import Record

from reports.csv_and_markdown import csv_text, markdown
from reports.page import page

STDOUT = Path("-")
"""Value of a flag without a file: the format replaces the tables on stdout."""
RESULT, RECORDS = "result.json", "records.jsonl"


def check(args: Namespace) -> None:
    """Raise ValueError if a file could not be written, before minutes of measurement are lost."""
    for path in (args.json, args.csv, args.markdown, args.report):
        if path not in (None, STDOUT) and not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent}, for {path.name}")
        if path not in (None, STDOUT) and path.is_dir():
            raise ValueError(f"{path} is a folder, not a file")
    if args.out is not None and (args.out / RECORDS).exists():
        raise ValueError(f"{args.out} has the records of another run; name another folder for --out")
    if args.out is not None:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"the folder {args.out} cannot be made: {error.strerror}") from error


def write(args: Namespace, result: dict[str, Any], records: Sequence[Record]) -> None:
    """Write the files that the flags name. Raises OSError."""
    texts: dict[Path | None, Callable[[], str]] = {
        args.json: lambda: json.dumps(result) + "\n",
        args.csv: lambda: csv_text(result),
        args.markdown: lambda: markdown(result),
        args.report: lambda: page(result, records),
    }
    for path, text in texts.items():
        if path is not None and path != STDOUT:
            path.write_text(text(), encoding="utf-8")
    if args.out is not None:
        (args.out / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        with (args.out / RECORDS).open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines(result, records))


def lines(result: dict[str, Any], records: Sequence[Record]) -> list[str]:
    """Return a line for each record, with the facts of its run: lines of several runs can be joined into one file."""
    environment, targets = result["environment"], result["targets"]
    servers = environment.get("servers") or [{}] * len(targets)
    found = []
    for record in records:
        target = targets[record.target]
        run = {
            "url": target["url"],
            "model": target["model"],
            "date": result.get("date"),
            "seed": result["settings"].get("seed"),
            "machine": environment.get("machine"),
            "server": servers[record.target],
        }
        found.append(json.dumps(json.loads(record.to_json()) | {"run": run}))
    return found


def tables_replaced(args: Namespace) -> bool:
    """True if a format replaces the tables on stdout."""
    return STDOUT in (args.json, args.csv, args.markdown)


def replacement(args: Namespace, result: dict[str, Any]) -> str:
    """Return the text that replaces the tables on stdout; the JSON of the last line follows in any case."""
    found = (csv_text(result) if args.csv == STDOUT else "", markdown(result) if args.markdown == STDOUT else "")
    return "\n".join(filter(None, found))
