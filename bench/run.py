"""Measure the latency of a server, knowing only its URL.

    python bench/run.py --url 127.0.0.1:8080 --concurrency 4 --requests 20
    python bench/run.py --scenario interference --url 127.0.0.1:8080 --vs 127.0.0.1:8081 --rounds 5

It needs only the standard library, so it runs beside any server. `client.py` explains why it hardly affects its own
figures, `scenarios/` contains the scenarios and `texts.py` their texts. With `--vs` the two servers alternate, round
by round, with identical texts, and only one of them works at a time: noise affects both alike.

`single` and `concurrent` send identical texts for equal seeds, so a second run against a running server shows the gain
of a prefix cache: choose another `--seed` for cold prompts. The other scenarios use new texts in each run.
`warm-restart` and `rotation` restart the server by a command of yours, which must return after the old one has ended.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import result as results
from options import manners, parser
from play import play
from report import ratio_table, table
from target import Target, restart_command
from token_budget import budget_table


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parser()
    args = flags.parse_args(arguments)
    if args.url is None:
        flags.error("the following arguments are required: --url")
    try:
        targets = [_target(url, args) for url in (args.url, args.vs) if url is not None]
        played = play(targets, args)
    except (TimeoutError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    result = results.build(targets, played, args)
    show(result)
    print(json.dumps(result))
    return 1 if result["errors"] else 0


def _target(url: str, args: argparse.Namespace) -> Target:
    """Return the server at a URL. Raises ValueError, which names the URL, if the server cannot be used."""
    try:
        return Target(url, manners(args), None if args.restart is None else restart_command(args.restart))
    except (OSError, ValueError) as error:
        raise ValueError(f"{url}: {error}") from error


def show(result: dict[str, Any]) -> None:
    """Print the tables for people."""
    settings, targets = result["settings"], result["targets"]
    for target in targets:
        print(f"{target['url']}, {target['model']}: {settings['scenario']}, rounds: {settings['rounds']}")
        if settings["deviations"]:
            print(f"requests differ from a client's default ones: {'; '.join(settings['deviations'])}")
        for name, figures in target["groups"].items():
            print(f"\n[{name}]\n{table(figures)}")
        print()
        if target["within"]:
            print(f"{ratio_table(target['within'])}\n")
        if settings["trace"]:
            print(f"{budget_table(target['budget'])}\n")
    if len(targets) > 1:
        print(f"{targets[0]['url']} / {targets[1]['url']}\n{ratio_table(result['ratios'])}\n")


if __name__ == "__main__":
    sys.exit(main())
