"""Outputs of a run beside its tables: surroundings and noise in the result, files, change since an older run."""

import argparse
import http.client
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from environment import OtherWorkWatch, is_local, machine, server
from record import Record
from target import Target
from transport import authorization

from reports import comparison, files
from reports.noise import noise
from reports.notes import notes

_FACTS_SECONDS = 5.0
"""Maximum seconds until a server has answered a request for its version."""


def add_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags of the outputs."""
    add = group.add_argument
    to = "; without FILE to stdout"
    add("--json", type=Path, nargs="?", const=files.STDOUT, metavar="FILE", help=f"Write the result as JSON{to}")
    add("--csv", type=Path, nargs="?", const=files.STDOUT, metavar="FILE", help=f"Write all figures as CSV{to}")
    add("--markdown", type=Path, nargs="?", const=files.STDOUT, metavar="FILE", help=f"Write tables as Markdown{to}")
    add("--out", type=Path, metavar="DIR", help="Write the result and a record of each request (JSONL) to a new folder")
    add("--report", type=Path, metavar="FILE.html", help="Write a page with plots: one file, for any browser")
    add("--compare", type=Path, metavar="OLD.json", help="Print the change since an older run (--json), with its noise")
    add(
        "--budget",
        type=_share,
        metavar="PERCENT",
        help="With --compare: exit with 1 if a median or a rate is worse by more than this percentage",
    )


class Outputs:
    """Outputs that the flags ask for. They are checked at the beginning, before minutes of measurement are lost."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Raises ValueError if a file cannot be written or read."""
        if args.budget is not None and args.compare is None:
            raise ValueError("--budget needs --compare OLD.json")
        self._args = args
        self._old = None if args.compare is None else comparison.read(args.compare)
        files.check(args)
        self._watch = OtherWorkWatch()

    def watch(self, targets: Sequence[Target], pids: Sequence[int | None]) -> None:
        """Watch for other work from now on. It is known if the process of each server of this machine is."""
        if all(pid is not None or not is_local(target.url) for target, pid in zip(targets, pids, strict=True)):
            self._watch.add([pid for pid in pids if pid is not None])

    def complete(self, result: dict[str, Any], targets: Sequence[Target], records: Sequence[Record]) -> None:
        """Add the surroundings of the run, its noise and the comparison to the result."""
        result["environment"] = {
            "machine": machine() | {"runs_servers": all(is_local(target.url) for target in targets)},
            "servers": [server(partial(self._get, target), target.model) for target in targets],
            "load": self._watch.report(),
        }
        for index, target in enumerate(result["targets"]):
            for name, figures in target["groups"].items():
                figures["noise"] = noise([r for r in records if (r.target, r.group) == (index, name)])
        if self._old is not None:
            changes = comparison.changes(self._old, result)
            result["comparison"] = comparison.as_json(changes, self._args.budget)

    def show(self, result: dict[str, Any]) -> None:
        """Print the format that replaces the tables on stdout, or what follows the tables."""
        if self.replaces_tables:
            print(files.replacement(self._args, result), end="")
        else:
            print(f"{notes(result)}\n")
        if self._old is not None:
            changes = comparison.changes(self._old, result)
            text = comparison.text(self._old, result, changes, self._args.budget)
            print(f"{text}\n", file=sys.stderr if self.replaces_tables else sys.stdout)

    @property
    def replaces_tables(self) -> bool:
        """True if another format is printed instead of the tables."""
        return files.tables_replaced(self._args)

    def write(self, result: dict[str, Any], records: Sequence[Record]) -> int:
        """Write the files, and return the exit status of the run."""
        try:
            files.write(self._args, result, records)
        except OSError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        return 1 if result["errors"] or result.get("comparison", {}).get("past_budget") else 0

    def _get(self, target: Target, path: str) -> Any:
        """Return the JSON that a server has at a path; None if it has none."""
        try:
            status, body = target.endpoint.get(path, authorization(self._args.api_key), _FACTS_SECONDS)
            return json.loads(body) if status == 200 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None


def _share(text: str) -> float:
    """Parse percent, such as `5` or `5%`."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number < 1000:
        raise argparse.ArgumentTypeError(f"must be percent, such as 5 or 5%, not {text!r}")
    return number / 100
