"""Compute figures from answers: percentiles, tables for people, an object for scripts, and ratios of two servers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from answer import MEASURES, TimedAnswer

PERCENTS = (50, 90, 99)


@dataclass(slots=True)
class Group:
    """Answers of all rounds that are counted together; `wall` is the seconds in which they ran."""

    answers: list[TimedAnswer] = field(default_factory=list)
    wall: float = 0.0
    measures: tuple[str, ...] = tuple(MEASURES)
    """Measures that are meaningful for this group."""

    def __iadd__(self, other: "Group") -> "Group":
        self.answers += other.answers
        self.wall += other.wall
        self.measures = other.measures
        return self


def percentile(values: list[float], percent: float) -> float | None:
    """Interpolate linearly between the two nearest ranks, as numpy does by default. Return None without values."""
    if not values:
        return None
    ranked = sorted(values)
    rank = (len(ranked) - 1) * percent / 100
    low, high = ranked[floor(rank)], ranked[ceil(rank)]
    return low + (high - low) * (rank - floor(rank))


def summarize(group: Group) -> dict[str, Any]:
    """Return all figures of a group for JSON; keys contain their unit. Failures are only counted."""
    good = [answer for answer in group.answers if not answer.error]
    errors = [answer.error for answer in group.answers if answer.error]
    return {
        "ok": len(good),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "wall_s": round(group.wall, 4),
        **_tokens(good, group.wall),
        **{f"{name}_ms": spread(_milliseconds(name, good)) for name in group.measures},
    }


def _tokens(answers: list[TimedAnswer], wall: float) -> dict[str, Any]:
    """Return the counts of tokens, and the output tokens per second of the group and of a stream."""
    tokens = sum(answer.tokens for answer in answers)
    prompts = sum(answer.input_tokens for answer in answers)
    return {
        "input_tokens": prompts,
        "cached_share": _rate(sum(answer.cached_tokens for answer in answers), prompts),
        "output_tokens": tokens,
        "output_tokens_are_deltas": any(answer.counted for answer in answers),
        "output_tokens_per_s": _rate(tokens, wall),
        "output_tokens_per_s_per_stream": _rate(tokens, sum(answer.end or 0.0 for answer in answers)),
    }


def _milliseconds(measure: str, answers: list[TimedAnswer]) -> list[float]:
    _, samples = MEASURES[measure]
    return [1000 * value for answer in answers for value in samples(answer) if value is not None]


def _rate(tokens: int, per: float) -> float | None:
    return round(tokens / per, 3) if per else None


def spread(values: list[float]) -> dict[str, float | None]:
    """Return count and percentiles."""
    points = {f"p{percent}": percentile(values, percent) for percent in PERCENTS}
    return {"n": len(values)} | {k: None if v is None else round(v, 3) for k, v in points.items()}


def table(figures: dict[str, Any]) -> str:
    """Return a group's figures for people, in milliseconds, each with its formula."""
    lines = [f"{'ms':<10} {'n':>6} {'p50':>10} {'p90':>10} {'p99':>10}  formula"]
    for name, (formula, _) in MEASURES.items():
        if found := figures.get(f"{name}_ms"):
            lines.append(f"{name:<10} {found['n']:>6} {_cells(found)}  {formula}")
    counted = "text deltas, counted (no usage)" if figures["output_tokens_are_deltas"] else "sum(n)"
    cached = figures["cached_share"]
    overall, stream = figures["output_tokens_per_s"], figures["output_tokens_per_s_per_stream"]
    if overall is not None:
        lines += [
            "",
            f"{figures['input_tokens']:>10} input tokens                usage.input_tokens, all requests",
            f"{_cell(cached):>10} share found in a cache     input_tokens_details.cached_tokens / input",
            f"{figures['output_tokens']:>10} output tokens               {counted}",
            f"{_cell(overall):>10} output tokens/s overall     sum(n) / wall time",
            f"{_cell(stream):>10} output tokens/s per stream  sum(n) / sum(e2e)",
            f"{_cell(figures['wall_s']):>10} s wall time                 first start to last read, warm-up apart",
        ]
    lines += [f"{figures['errors']:>10} errors                      {figures['ok']} requests went well"]
    return "\n".join(lines + [f"first error: {figures['first_error']}"] * bool(figures["errors"]))


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return one group's figures divided by another's, percentile by percentile. Below 1 is faster, except for
    tokens/s and the cached share."""
    result: dict[str, Any] = {}
    for name, value in ours.items():
        if name.endswith("_ms") and name in theirs:
            result[name] = {f"p{percent}": _ratio(value, theirs[name], f"p{percent}") for percent in PERCENTS}
        elif name in ("output_tokens_per_s", "cached_share") and value is not None:
            result[name] = _ratio(ours, theirs, name)
    return result


def _ratio(ours: dict[str, Any], theirs: dict[str, Any], key: str) -> float | None:
    return round(ours[key] / theirs[key], 4) if ours[key] is not None and theirs[key] else None


def ratio_table(groups: dict[str, dict[str, Any]]) -> str:
    """Return the `ratios` of each group for people."""
    lines = [f"{'ratio':<28} {'p50':>10} {'p90':>10} {'p99':>10}"]
    lines += [line for group, found in groups.items() for line in _ratio_lines(group, found)]
    return "\n".join(lines)


def _ratio_lines(group: str, found: dict[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        label = f"{group} {name.removesuffix('_ms')}"
        if isinstance(value, dict):
            yield f"{label:<28} {_cells(value)}"
        else:
            yield f"{label:<28} {_cell(value):>10}"


def _cells(values: dict[str, Any]) -> str:
    return " ".join(f"{_cell(values[f'p{percent}']):>10}" for percent in PERCENTS)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"
