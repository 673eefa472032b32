"""Plays the rounds of a load on the targets in turn, and collects their records."""

import argparse
import time
from collections import defaultdict

from measures import Group
from record import Record
from scenarios import SCENARIOS, Groups, Size
from target import Target
from texts import Texts

REPLAYED = {"single", "concurrent"}
"""Scenarios that repeat their texts in every run."""
PAUSE_SECONDS = 0.3
"""Seconds before a round, in which work left over from the last round ends on either server."""


def play(targets: list[Target], args: argparse.Namespace) -> list[Groups]:
    """Return the groups of each target over all rounds."""
    size = Size(args.concurrency, args.requests, args.tokens, args.prompt_words, targets[0].restarts)
    salt = "" if args.scenario in REPLAYED else time.time_ns()
    results: list[Groups] = [defaultdict(Group) for _ in targets]
    for target in targets:
        texts = Texts(f"{args.seed} warm-up {salt}")
        target.client().play([target.request(texts.prompt(size.words), size.tokens) for _ in range(args.warmup)], 1)
    begin = time.perf_counter()
    for number in range(args.rounds):
        for index, target in enumerate(targets):
            time.sleep(PAUSE_SECONDS)
            texts = Texts(f"{args.seed} {number} {salt}")
            for name, group in SCENARIOS[args.scenario](target, texts, size).items():
                place(group.records, index, number, name, begin)
                results[index][name] += group
    return results


def place(records: list[Record], target: int, number: int, group: str, begin: float) -> None:
    """Set each record's place in the run; its times of the clock become times since the begin."""
    for record in records:
        record.target, record.round, record.group = target, number, group
        record.start -= begin
        if record.planned is not None:
            record.planned -= begin
