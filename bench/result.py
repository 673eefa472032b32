"""The object for scripts: settings, figures of each target's groups, ratios."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flags import deviations
from load import Length
from measures import Group, Objectives, distances, ratios, summarize
from play import Played, planned_part, sweep
from processes import ProcessMeter
from scenarios import COMPARED, Groups
from target import Target
from token_budget import budget
from wording import counted

SCHEMA = 1
EQUAL_LENGTHS = {"single", "concurrent", "open", "timed", "sweep", "replay", "soak"}
"""Loads whose answers should have their full length."""
_PRIVATE = {"api_key"}


def build(
    targets: list[Target], meters: list[ProcessMeter | None], run: Played, args: argparse.Namespace
) -> dict[str, Any]:
    """Return the result of a run."""
    load, played = planned_part(args).name, run.groups
    objectives = sweep(args).objectives if args.sweep else args.slo
    parts = [{name: summarize(group, objectives) for name, group in groups.items()} for groups in played]
    return {
        "schema": SCHEMA,
        "interrupted": run.interrupted,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {},
        "settings": settings(args) | {"load": load},
        "targets": [
            {
                "url": target.url,
                "model": target.model,
                "groups": parts[index],
                "warnings": [*warnings(parts[index], load)],
                "within": within(played[index], load),
                "process": _process(meters[index], played[index]),
                "knee": _knee(played[index], args),
                "budget": budget(all_records([played[index]])) if args.trace else None,
                "limits": distances(args.floor, parts[index]) if args.floor else [],
            }
            for index, target in enumerate(targets)
        ],
        "ratios": _ratios(*played) if len(played) > 1 else {},
        "sweep": _sweep(played, args),
        "errors": sum(group["errors"] for groups in parts for group in groups.values()),
    }


def _ratios(ours: Groups, theirs: Groups) -> dict[str, Any]:
    """Return the ratios of the groups that both servers have."""
    return {name: ratios(group, theirs[name]) for name, group in ours.items() if name in theirs}


def warnings(groups: dict[str, dict[str, Any]], load: str) -> Iterator[str]:
    """Yield what makes figures of equal requests hard to compare."""
    answers = sum(figures["ok"] for figures in groups.values())
    early = sum(figures["ended_early"] for figures in groups.values())
    if load in EQUAL_LENGTHS and early:
        yield (
            f"{early} of {counted(answers, 'answer')} ended before the maximum of tokens, so lengths differ; "
            "--ignore-eos makes them equal, if the server knows it"
        )


def within(groups: Groups, load: str) -> dict[str, Any]:
    """Return the ratios of the two groups that the load compares; empty if one was not played."""
    name, base = COMPARED.get(load, ("", ""))
    if load == "soak" and len(groups) > 1:
        base, *_, name = groups
    if name not in groups or base not in groups:
        return {}
    return {f"{name} / {base}": ratios(groups[name], groups[base])}


def _process(meter: ProcessMeter | None, groups: Groups) -> dict[str, Any] | None:
    tokens = sum(record.output_tokens for group in groups.values() for record in group.records)
    return None if meter is None else meter.figures(tokens)


def _sweep(played: list[Groups], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the levels of a sweep on each target."""
    if not args.sweep:
        return []
    found = sweep(args)
    return [{"target": index} | entry for index, groups in enumerate(played) for entry in found.entries(groups)]


def _knee(groups: Groups, args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the highest level that meets the objectives; None without a sweep."""
    if not args.sweep:
        return None
    found = sweep(args)
    return {
        "kind": found.kind,
        "level": found.knee(groups),
        "attainment": found.attainment,
        "objectives": str(found.objectives),
    }


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags as JSON, without the key, and how requests differ from a client's default ones."""
    flags = {name: _plain(value) for name, value in vars(args).items() if name not in _PRIVATE}
    return flags | {"deviations": deviations(args)}


def _plain(value: object) -> Any:
    if isinstance(value, Length):
        return value.text
    if isinstance(value, Objectives | Path):
        return str(value)
    return value


def all_records(played: list[Groups]) -> list[Any]:
    """Return the records of all targets, in the order of their starts."""
    found: list[Group] = [group for groups in played for group in groups.values()]
    return sorted((record for group in found for record in group.records), key=lambda record: record.start)
