"""The tables of a terminal: figures and ratios."""

from collections.abc import Iterator
from typing import Any

from measures import MEASURES, POINTS, distance_line
from token_budget import budget_table
from wording import counted, noun_of

from reports.rates import RATES


def show(result: dict[str, Any]) -> None:
    """Print the tables of a result."""
    settings, targets = result["settings"], result["targets"]
    for index, target in enumerate(targets):
        print(f"{target['url']}, {target['model']}: {settings['load']}, rounds: {settings['rounds']}")
        if settings["deviations"]:
            print(f"requests differ from a client's default ones: {'; '.join(settings['deviations'])}")
        for name, figures in target["groups"].items():
            print(f"\n[{name}]\n{table(figures)}")
        print()
        entries = [entry for entry in result["sweep"] if entry["target"] == index]
        for part in _parts(target, settings["trace"], entries):
            print(f"{part}\n")
    if len(targets) > 1:
        print(f"{targets[0]['url']} / {targets[1]['url']}\n{ratio_table(result['ratios'])}\n")


def _parts(target: dict[str, Any], is_traced: bool, entries: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the texts below the figures of a target; `entries` are the levels of its sweep."""
    yield from (f"warning: {warning}" for warning in target["warnings"])
    if target["within"]:
        yield ratio_table(target["within"])
    if process := target["process"]:
        yield process_line(process)
    if is_traced:
        yield budget_table(target["budget"])
    yield from map(distance_line, target["limits"])
    if entries:
        yield sweep_table(entries, target["knee"])


def process_line(process: dict[str, Any]) -> str:
    """Return the use of a server's process."""
    return (
        f"process {process['pid']}: RSS {process['rss_mb']} MB (before {process['rss_mb_before']}, "
        f"most {process['peak_rss_mb']}), {counted(process['threads'], 'thread')}, CPU {process['cpu_s']} s, "
        f"{_cell(process['cpu_s_per_1000_output_tokens'])} s per 1,000 output tokens"
    )


def sweep_table(entries: list[dict[str, Any]], knee: dict[str, Any]) -> str:
    """Return the levels of a sweep and the knee."""
    lines = [
        f"{entry['group']:<20} {entry['met']:>7.1%} {'' if entry['holds'] else 'broken'}".rstrip() for entry in entries
    ]
    found = "there is no level" if knee["level"] is None else f"{knee['kind']} {knee['level']:g} is the highest level"
    condition = f"{knee['attainment']:.0%} of the requests meet {knee['objectives']}"
    return "\n".join([f"{'level':<20} {'met':>7}", *lines, f"knee: {found} at which {condition}"])


def table(figures: dict[str, Any]) -> str:
    """Return a group's figures for people, in milliseconds, each with its formula."""
    lines = [f"{'ms':<10} {'n':>6} {_heads()}  formula"]
    for name, (formula, _) in MEASURES.items():
        if found := figures.get(f"{name}_ms"):
            lines.append(f"{name:<10} {found['n']:>6} {_cells(found)}  {formula}")
    if figures["output_tokens_per_s"] is not None:
        lines += ["", *_rates(figures)]
    errors = ", ".join(f"{kind}: {count}" for kind, count in figures["errors_by_kind"].items())
    failed, ok = noun_of(figures["errors"], "error"), counted(figures["ok"], "request")
    lines.append(f"{figures['errors']:>10} {failed:<27} {errors or 'none'}; {ok} went well")
    return "\n".join(lines + [f"first error: {figures['first_error']}"] * bool(figures["errors"]))


def _rates(figures: dict[str, Any]) -> Iterator[str]:
    for key, (name, formula) in RATES.items():
        if key in figures:
            value = figures[key]
            if key == "output_tokens" and figures["output_tokens_are_deltas"]:
                formula = "text deltas, counted (no usage)"
            yield f"{value if isinstance(value, int) else _cell(value):>10} {name:<27} {formula}"


def ratio_table(groups: dict[str, dict[str, Any]]) -> str:
    """Return the `ratios` of each group for people, each with its 95 % confidence interval."""
    lines = [f"{'ratio':<36} {'':<5} {'ratio':>8} {'95% from':>9} {'to':>8}"]
    for group, found in groups.items():
        for name, value in found.items():
            rows = {"": value} if "ratio" in value else value
            for point, each in rows.items():
                label = f"{group} {name.removesuffix('_ms')}"
                lines.append(
                    f"{label:<36} {point:<5} {_cell(each['ratio']):>8} {_cell(each['low']):>9} {_cell(each['high']):>8}"
                )
    return "\n".join(lines)


def _heads() -> str:
    return " ".join(f"{point:>10}" for point in POINTS)


def _cells(values: dict[str, Any]) -> str:
    return " ".join(f"{_cell(values[point]):>10}" for point in POINTS)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"
