"""Measure every row of the README's table: this server against llama.cpp's, in turn.

    python bench/figures.py --model ~/.cache/responsed/models/SmolLM2-135M-Instruct.Q4_1.gguf

It runs the bench once for each load, with `bench/peer.py` as the other server, once more with `--trace` on this server
alone, and `bench/floor.py` for the bare loop: 4 minutes on two quiet cores; the time that it took follows the table.
The table is Markdown; the last line of stdout is one JSON object with the commands and the results. The exit status is
that of the first run that fails.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wording import counted

FOLDER = Path(__file__).parent
OURS = (
    "{python} -m server serve --model {model} --port {{port}} --threads 2 --slots 8 --context 4096 "
    "--kv-snapshot-megabytes 0"
)
"""Default command of this server; `{{port}}` is left to the bench."""
THEIRS = "{python} {folder}/peer.py --model {model} --port {{port}} --threads 2 --slots 8 --context 32768"
"""Default command of llama.cpp's server."""

Groups = dict[str, dict[str, Any]]


@dataclass(slots=True, frozen=True)
class TableRow:
    """A row of the table: its label, and how its cell is made from a server's groups."""

    label: str
    cell: Callable[[Groups], str]


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:,.1f} s" if value >= 10_000 else f"{value:,.0f} ms" if value >= 100 else f"{value:.2f} ms"


def _point(group: str, measure: str, point: str) -> Callable[[Groups], str]:
    return lambda groups: _milliseconds(groups[group][f"{measure}_ms"][point])


def _first(groups: Groups) -> str:
    return f"{_point('all', 'first_byte', 'p50')(groups)}, {_point('all', 'ttft', 'p50')(groups)}"


def _rate(groups: Groups) -> str:
    return f"{groups['all']['output_tokens_per_s']:.0f}"


LOADS: dict[tuple[str, ...], tuple[TableRow, ...]] = {
    ("--requests", "12", "--rounds", "2"): (
        TableRow("one stream: first byte, first token", _first),
        TableRow("one stream: time between tokens (bare loop: {floor})", _point("all", "itl", "p50")),
    ),
    ("--scenario", "interference", "--rounds", "2"): (
        TableRow(
            "four streams while a 2,000-token prompt arrives: longest time between tokens",
            _point("during", "itl", "max"),
        ),
        TableRow("that prompt's own first token", _point("long prompt", "ttft", "mean")),
    ),
    ("--scenario", "shared-prefix", "--rounds", "2"): (
        TableRow("eight clients with the same 600 tokens of instructions: first token", _point("all", "ttft", "p50")),
    ),
    ("--concurrency", "8", "--requests", "16", "--rounds", "2"): (
        TableRow("eight cold prompts at a time: output tokens/s", _rate),
    ),
}
"""Flags of the bench -> the rows that one run fills."""


TRACED = ("--trace", "--requests", "12")
"""Flags of the run whose budget of a token fills the row `BUDGET`; other servers have no times of tokens."""
STAGES = ("wait", "decode", "sample", "hand-over", "encode", "send", "network")
BUDGET = f"budget of a token (medians): {', '.join(STAGES)}"


def measure(flags: Sequence[str], ours: str, *theirs: str) -> dict[str, Any]:
    """Run the bench once and return its result. Raises CalledProcessError."""
    command = [sys.executable, str(FOLDER / "run.py"), "--serve", ours, *flags]
    command += [part for each in theirs for part in ("--vs", each)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def floor(model: str) -> float:
    """Return the milliseconds of a bare step of one sequence. Raises CalledProcessError."""
    command = [sys.executable, str(FOLDER / "floor.py"), "--model", model, "--threads", "2", "--engine", "llamacpp"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["engines"]["llamacpp"]["1_step_ms"]["p50"])


def budget_cell(traced: dict[str, Any]) -> str:
    """Return the medians of the stages of a token."""
    found = traced["targets"][0]["budget"]
    if found is None:
        return "not measured"
    medians = {row["stage"]: row["p50_ms"] for row in found["token"]}
    return f"{', '.join(f'{medians[stage]:.2f}' for stage in STAGES)} ms"


def table(results: Sequence[dict[str, Any]], traced: dict[str, Any], floor_ms: float | None) -> str:
    """Return the Markdown table of the results, which are in the order of `LOADS`, and of the traced run."""
    bare = "not measured" if floor_ms is None else f"{floor_ms:.2f} ms"
    lines = ["| | responsed | llama.cpp's |", "|---|---|---|"]
    for rows, result in zip(LOADS.values(), results, strict=True):
        for row in rows:
            cells = [row.cell(target["groups"]) for target in result["targets"]]
            lines.append(f"| {row.label.format(floor=bare)} | {' | '.join(cells)} |")
    lines.append(f"| {BUDGET} | {budget_cell(traced)} | - |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/figures.py", description="Measure the table of the README.")
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--ours", default=OURS, help="command of this server (default: %(default)s)")
    parser.add_argument("--theirs", default=THEIRS, help="command of the other server (default: %(default)s)")
    parser.add_argument("--no-floor", action="store_true", help="leave out the bare loop")
    args = parser.parse_args()
    places = {
        "python": shlex.quote(sys.executable),
        "model": shlex.quote(args.model),
        "folder": shlex.quote(str(FOLDER)),
    }
    ours, theirs = args.ours.format(**places), args.theirs.format(**places)
    begin = time.monotonic()
    try:
        results = [measure(flags, ours, theirs) for flags in LOADS]
        traced = measure(TRACED, f"{ours} --token-times true")
        floor_ms = None if args.no_floor else floor(args.model)
    except subprocess.CalledProcessError as error:
        print(f"figures: {shlex.join(error.cmd)} failed", file=sys.stderr)
        return error.returncode
    minutes = round((time.monotonic() - begin) / 60)
    print(f"{table(results, traced, floor_ms)}\n\nmeasured in {counted(minutes, 'minute')}")
    print(json.dumps({"ours": ours, "theirs": theirs, "floor_ms": floor_ms, "results": [*results, traced]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
