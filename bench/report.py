"""Tables of figures and ratios for people."""

from collections.abc import Iterator
from typing import Any

from measures import MEASURES, POINTS


def table(figures: dict[str, Any]) -> str:
    """Return a group's figures for people, in milliseconds, each with its formula."""
    lines = [f"{'ms':<10} {'n':>6} {_heads()}  formula"]
    for name, (formula, _) in MEASURES.items():
        if found := figures.get(f"{name}_ms"):
            lines.append(f"{name:<10} {found['n']:>6} {_cells(found)}  {formula}")
    if figures["output_tokens_per_s"] is not None:
        lines += ["", *_rates(figures)]
    errors = ", ".join(f"{kind}: {count}" for kind, count in figures["errors_by_kind"].items())
    lines += [
        f"{figures['errors']:>10} errors                      {errors or 'none'}; {figures['ok']} requests went well"
    ]
    return "\n".join(lines + [f"first error: {figures['first_error']}"] * bool(figures["errors"]))


def _rates(figures: dict[str, Any]) -> Iterator[str]:
    counted = "text deltas, counted (no usage)" if figures["output_tokens_are_deltas"] else "sum(n)"
    for key, name, formula in (
        ("input_tokens", "input tokens", "usage.input_tokens, all requests"),
        ("cached_share", "share found in a cache", "input_tokens_details.cached_tokens / input"),
        ("prefill_tokens_per_s", "prefill tokens/s", "(input - cached tokens) / sum(ttft)"),
        ("output_tokens", "output tokens", counted),
        ("output_tokens_per_s", "output tokens/s overall", "sum(n) / wall time"),
        ("output_tokens_per_s_per_stream", "output tokens/s per stream", "sum(n) / sum(e2e)"),
        ("requests_per_s", "requests/s", "successful requests / wall time"),
        ("goodput_share", "share that meets --slo", "requests that meet all objectives / all requests"),
        ("goodput_requests_per_s", "goodput, requests/s", "requests that meet all objectives / wall time"),
        ("wall_s", "s wall time", "first start to last read, warm-up apart"),
    ):
        if key in figures:
            value = figures[key]
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
