"""How quickly a Responses server answers: a stranger that knows its URL and nothing else.

    python bench/run.py --url http://127.0.0.1:8080 --concurrency 4 --requests 20
    python bench/run.py --scenario interference --url http://127.0.0.1:8080 --vs http://127.0.0.1:8081 --rounds 5

Standard library only, so it runs beside any server; how it stays out of its own figures: `client.py`. What is done
in a scenario: `scenarios.py`; with which texts: `texts.py`. With `--vs` the two servers take turns, round by round,
on the same texts, and only one of them has something to do at a time: noise meets both.

`single` and `concurrent` play the same texts for the same seed, and so show what a prefix cache is worth when played
again to the same running server: take another `--seed` for cold prompts. The texts of the other scenarios are new
in each run. `warm-restart` has the server restarted by a command of yours, which returns when the old one has ended.

Exit status: 0 all answered, 1 some request failed, 2 not reachable or not asked correctly.
The tables are for people; the very last line of stdout is one JSON object for scripts.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from typing import Any

from report import Part, ratio_table, ratios, summarize, table
from scenarios import SCENARIOS, Parts, Size
from target import Target
from texts import Texts

REPLAYED = {"single", "concurrent"}
PAUSE_SECONDS = 0.3
"""Before a round: what the round before has left behind, on either server, comes to rest."""


def play(targets: list[Target], args: argparse.Namespace) -> list[Parts]:
    """The parts of each target, over all rounds."""
    size = Size(args.concurrency, args.requests, args.tokens, args.prompt_words)
    salt = "" if args.scenario in REPLAYED else time.time_ns()
    results: list[Parts] = [defaultdict(Part) for _ in targets]
    for target in targets:
        texts = Texts(f"{args.seed} warm-up {salt}")
        target.client().play([target.request(texts.prompt(size.words), size.tokens) for _ in range(args.warmup)], 1)
    for number in range(args.rounds):
        for target, parts in zip(targets, results, strict=True):
            time.sleep(PAUSE_SECONDS)
            texts = Texts(f"{args.seed} {number} {salt}")
            for name, part in SCENARIOS[args.scenario](target, texts, size).items():
                parts[name] += part
    return results


def show(target: Target, parts: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    """The tables for people."""
    print(f"{target.url}, {target.model}: {args.scenario}, rounds: {args.rounds}")
    for name, figures in parts.items():
        print(f"\n[{name}]\n{table(figures)}")
    print()


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _not_negative(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Latency of a Responses server.")
    add = parser.add_argument
    add("--url", required=True, help="with or without the trailing /v1")
    add("--vs", metavar="URL", help="another server, to take turns with and to compare with")
    add("--scenario", choices=SCENARIOS, default="single", help="default: %(default)s")
    add("--rounds", type=_positive, default=1, help="of the scenario, counted together")
    add("--restart", metavar="COMMAND", help="restarts the server (warm-restart): systemctl restart responsed")
    add("--model", help="default: the first of /v1/models")
    add("--concurrency", type=_positive, default=1, help="streams at a time (single)")
    add("--requests", type=_positive, default=20, help="a round, or a level of it (single, concurrent, constrained)")
    add(
        "--tokens",
        type=_positive,
        default=64,
        help="max_output_tokens of each request (single, concurrent, constrained)",
    )
    add("--prompt-words", type=_positive, default=50, help="(single, concurrent, constrained)")
    add("--seed", type=int, default=0)
    add("--warmup", type=_not_negative, default=1, help="requests before, not counted")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    urls = [args.url] + [args.vs] * (args.vs is not None)
    targets = []
    for url in urls:
        try:
            targets.append(Target(url, args.model, args.restart))
        except (OSError, ValueError) as error:
            print(f"bench: {url}: {error}", file=sys.stderr)
            return 2
    try:
        results = play(targets, args)
    except (TimeoutError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    figures = [{name: summarize(part) for name, part in parts.items()} for parts in results]
    for target, parts in zip(targets, figures, strict=True):
        show(target, parts, args)
    result: dict[str, Any] = vars(args) | {"model": targets[0].model, "parts": figures[0]}
    if args.vs:
        compared = {name: ratios(part, figures[1][name]) for name, part in figures[0].items()}
        print(f"{args.url} / {args.vs}\n{ratio_table(compared)}\n")
        result |= {"vs_model": targets[1].model, "vs_parts": figures[1], "ratios": compared}
    result["errors"] = sum(part["errors"] for parts in figures for part in parts.values())
    print(json.dumps(result))
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
