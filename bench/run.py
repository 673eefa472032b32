"""Measure the latency of a Responses server, knowing only its URL.

    python bench/run.py --url http://127.0.0.1:8080 --concurrency 4 --requests 20
    python bench/run.py --scenario interference --url http://127.0.0.1:8080 --vs http://127.0.0.1:8081 --rounds 5

It needs only the standard library, so it runs beside any server. `client.py` explains why it hardly affects its own
figures, `scenarios/` contains the scenarios and `texts.py` their texts. With `--vs` the two servers alternate, round
by round, with identical texts, and only one of them works at a time: noise affects both alike.

`single` and `concurrent` send identical texts for equal seeds, so a second run against a running server shows the gain
of a prefix cache: choose another `--seed` for cold prompts. The other scenarios use new texts in each run.
`warm-restart` and `rotation` restart the server by a command of yours, which must return after the old one has ended.

Exit status: 0 if all requests succeeded, 1 if some failed, 2 if the server is unreachable or the arguments are wrong.
The tables are for people; the very last line of stdout is one JSON object for scripts.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from typing import Any

from report import Group, ratio_table, ratios, summarize, table
from scenarios import COMPARED, SCENARIOS, Groups, Size
from target import Target
from texts import Texts

REPLAYED = {"single", "concurrent"}
"""Scenarios that repeat their texts in every run."""
PAUSE_SECONDS = 0.3
"""Seconds before a round, in which work left over from the last round ends on either server."""


def play(targets: list[Target], args: argparse.Namespace) -> list[Groups]:
    """Return the groups of each target over all rounds."""
    size = Size(args.concurrency, args.requests, args.tokens, args.prompt_words, args.restart is not None)
    salt = "" if args.scenario in REPLAYED else time.time_ns()
    results: list[Groups] = [defaultdict(Group) for _ in targets]
    for target in targets:
        texts = Texts(f"{args.seed} warm-up {salt}")
        target.client().play([target.request(texts.prompt(size.words), size.tokens) for _ in range(args.warmup)], 1)
    for number in range(args.rounds):
        for target, groups in zip(targets, results, strict=True):
            time.sleep(PAUSE_SECONDS)
            texts = Texts(f"{args.seed} {number} {salt}")
            for name, group in SCENARIOS[args.scenario](target, texts, size).items():
                groups[name] += group
    return results


def show(target: Target, groups: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the tables for people."""
    print(f"{target.url}, {target.model}: {args.scenario}, rounds: {args.rounds}")
    for name, figures in groups.items():
        print(f"\n[{name}]\n{table(figures)}")
    print()


def _positive(text: str) -> int:
    """Parse a number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _not_negative(text: str) -> int:
    """Parse a number of at least 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure the latency of a Responses server.")
    add = parser.add_argument
    add("--url", required=True, help="with or without the trailing /v1")
    add("--vs", metavar="URL", help="another server to alternate and compare with")
    add("--scenario", choices=SCENARIOS, default="single", help="default: %(default)s")
    add("--rounds", type=_positive, default=1, help="rounds of the scenario, counted together")
    add(
        "--restart",
        metavar="COMMAND",
        help="command that restarts the server (warm-restart, rotation), such as: systemctl restart responsed",
    )
    add("--model", help="default: first model of /v1/models")
    add("--concurrency", type=_positive, default=1, help="number of parallel streams (single)")
    add(
        "--requests",
        type=_positive,
        default=20,
        help="requests of a round or of a level (single, concurrent, constrained, forms)",
    )
    add(
        "--tokens",
        type=_positive,
        default=64,
        help="max_output_tokens of each request (single, concurrent, constrained)",
    )
    add("--prompt-words", type=_positive, default=50, help="words of a prompt (single, concurrent, constrained, forms)")
    add("--no-store", action="store_true", help="send store: false, which clients do not send by default")
    add("--temperature", type=float, help="send this temperature, which clients do not send by default")
    add("--seed", type=int, default=0)
    add("--warmup", type=_not_negative, default=1, help="requests before the first round, not counted")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    try:
        targets = [_target(url, args) for url in (args.url, args.vs) if url is not None]
        results = play(targets, args)
    except (TimeoutError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    figures = [{name: summarize(group) for name, group in groups.items()} for groups in results]
    for target, groups in zip(targets, figures, strict=True):
        show(target, groups, args)
        if found := _within(groups, args.scenario):
            print(f"{ratio_table(found)}\n")
    result = _result(targets, figures, args)
    if args.vs:
        print(f"{args.url} / {args.vs}\n{ratio_table(result['ratios'])}\n")
    print(json.dumps(result))
    return 1 if result["errors"] else 0


def _target(url: str, args: argparse.Namespace) -> Target:
    """Return the server at a URL. Raises ValueError, which names the URL, if the server cannot be used."""
    try:
        return Target(url, args.model, args.restart, _fields(args))
    except (OSError, ValueError) as error:
        raise ValueError(f"{url}: {error}") from error


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of requests that the flags add to a client's default ones."""
    fields: dict[str, Any] = {} if args.temperature is None else {"temperature": args.temperature}
    return fields | {"store": False} if args.no_store else fields


def _within(groups: dict[str, dict[str, Any]], scenario: str) -> dict[str, Any]:
    """Return the ratios of the two groups that the scenario compares; empty if one was not played."""
    name, base = COMPARED.get(scenario, ("", ""))
    if name not in groups or base not in groups:
        return {}
    return {f"{name} / {base}": ratios(groups[name], groups[base])}


def _result(targets: list[Target], figures: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Return the object for scripts: arguments, figures of each target's groups, and the number of failed requests."""
    ours = figures[0]
    result: dict[str, Any] = vars(args) | {"model": targets[0].model, "parts": ours}
    if args.vs:
        theirs = figures[1]
        compared = {name: ratios(group, theirs[name]) for name, group in ours.items()}
        result |= {"vs_model": targets[1].model, "vs_parts": theirs, "ratios": compared}
        result["vs_within"] = _within(theirs, args.scenario)
    result["within"] = _within(ours, args.scenario)
    return result | {"errors": sum(group["errors"] for groups in figures for group in groups.values())}


if __name__ == "__main__":
    sys.exit(main())
