"""The object for scripts: settings, figures of each target's groups, ratios."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measures import Group, Objectives, ratios, summarize
from options import deviations
from scenarios import COMPARED, Groups
from target import Target
from token_budget import budget

SCHEMA = 1
_PRIVATE = {"api_key"}


def build(targets: list[Target], played: list[Groups], args: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a run."""
    parts = [{name: summarize(group, args.slo) for name, group in groups.items()} for groups in played]
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {},
        "settings": settings(args),
        "targets": [
            {
                "url": target.url,
                "model": target.model,
                "groups": groups,
                "within": within(played[index], args.scenario),
                "budget": budget(all_records([played[index]])) if args.trace else None,
            }
            for index, (target, groups) in enumerate(zip(targets, parts, strict=True))
        ],
        "ratios": {},
        "sweep": [],
        "errors": sum(group["errors"] for groups in parts for group in groups.values()),
    }
    if len(played) > 1:
        ours, theirs = played
        result["ratios"] = {name: ratios(group, theirs[name]) for name, group in ours.items() if name in theirs}
    return result


def within(groups: Groups, scenario: str) -> dict[str, Any]:
    """Return the ratios of the two groups that the scenario compares; empty if one was not played."""
    name, base = COMPARED.get(scenario, ("", ""))
    if name not in groups or base not in groups:
        return {}
    return {f"{name} / {base}": ratios(groups[name], groups[base])}


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags as JSON, without the key, and how requests differ from a client's default ones."""
    flags = {name: _plain(value) for name, value in vars(args).items() if name not in _PRIVATE}
    return flags | {"deviations": deviations(args)}


def _plain(value: object) -> Any:
    if isinstance(value, Objectives | Path):
        return str(value)
    return value


def all_records(played: list[Groups]) -> list[Any]:
    """Return the records of all targets, in the order of their starts."""
    found: list[Group] = [group for groups in played for group in groups.values()]
    return sorted((record for group in found for record in group.records), key=lambda record: record.start)
