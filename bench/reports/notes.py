"""Lines after the tables of the terminal: the machine and other work on it, and the noise of the rounds."""

from collections.abc import Iterator
from typing import Any

from wording import counted

from reports.noise import ROUND_POINTS, relative
from reports.scales import number
from reports.series import short

CUT = "these are the figures of the complete requests; of a scenario with several groups, of the complete rounds"
"""Sentence about the figures of an interrupted run."""
_NOISY = ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "output_tokens_per_s")


def notes(result: dict[str, Any]) -> str:
    """Return the lines."""
    cut = [f"INTERRUPTED: {CUT}"] if result.get("interrupted") else []
    return "\n".join([*_noise(result), *_machine(result), *cut])


def _machine(result: dict[str, Any]) -> Iterator[str]:
    environment = result["environment"]
    facts = environment["machine"]
    governor = facts["governor"] or "unknown"
    servers = ", ".join(f"{short(t['url'])} {s['version'] or 'unknown'}" for t, s in _with_servers(result))
    own = "" if facts["runs_servers"] else " (of the bench, not of the server)"
    cpu, cores = facts["cpu"] or facts["architecture"], counted(facts["cores"], "core")
    yield f"machine{own}: {cpu}, {cores}, governor {governor}"
    yield f"versions: {servers}"
    for sentence in environment["load"]["busy"]:
        yield f"THE MACHINE IS BUSY: {sentence}"


def _with_servers(result: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(result["targets"], result["environment"]["servers"], strict=True))


def _noise(result: dict[str, Any]) -> Iterator[str]:
    """Yield the table of the rounds; nothing of one round, which has no noise to see."""
    rows = [
        (f"{short(target['url'])} {name} {figure.removesuffix('_ms')}", group["noise"][figure])
        for target in result["targets"]
        for name, group in target["groups"].items()
        for figure in _NOISY
        if figure in group["noise"]
    ]
    if not rows:
        return
    yield f"{'noise: medians of the rounds':<48} {'min':>9} {'median':>9} {'max':>9}"
    for label, spread in rows:
        cells = " ".join(f"{number(spread[point]):>9}" for point in ROUND_POINTS)
        yield f"{label:<48} {cells}  ±{100 * (relative(spread) or 0.0):.1f}%"
    yield ""
