"""The figures as CSV, one line for each figure of a group, and as a Markdown table."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from measures import POINTS

from reports.noise import ROUND_POINTS
from reports.scales import number, whole_or_number
from reports.series import short

HEAD = ("url", "model", "group", "figure", "value", "n", *POINTS, *(f"rounds_{point}" for point in ROUND_POINTS))


def csv_text(result: dict[str, Any]) -> str:
    """Return the CSV with its head. Names of figures contain their unit; a figure of one number has `value`."""
    out = io.StringIO()
    writer = csv.DictWriter(out, HEAD, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(result))
    return out.getvalue()


def _rows(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for target in result["targets"]:
        for group, figures in target["groups"].items():
            for name, value in figures.items():
                row = {"url": target["url"], "model": target["model"], "group": group, "figure": name}
                spread = figures.get("noise", {}).get(name, {})
                row |= {f"rounds_{point}": spread[point] for point in ROUND_POINTS if spread}
                if values := _values(value):
                    yield row | values


def _values(figure: Any) -> dict[str, Any]:
    """Return the columns of a figure; none if it is neither a number nor a distribution."""
    if isinstance(figure, dict) and "p50" in figure:
        return {point: figure.get(point) for point in ("n", *POINTS)}
    return {"value": figure} if isinstance(figure, int | float) and not isinstance(figure, bool) else {}


def markdown(result: dict[str, Any]) -> str:
    """Return a table of latencies and one of rates, with a row for each figure of each group and server."""
    latencies = [["server", "group", "ms", "n", *POINTS, "rounds' p50"]]
    rates = [["server", "group", "figure", "value", "rounds"]]
    for row in _rows(result):
        place = [short(row["url"]), row["group"]]
        rounds = f"{number(row['rounds_min'])} to {number(row['rounds_max'])}" if "rounds_min" in row else "-"
        if "value" in row:
            rates.append([*place, row["figure"], whole_or_number(row["value"]), rounds])
        elif row["figure"].endswith("_ms") and row["n"]:
            values = (number(row[point]) for point in POINTS)
            latencies.append([*place, row["figure"].removesuffix("_ms"), f"{row['n']:,}", *values, rounds])
    return f"{_lines(latencies, 3)}\n{_lines(rates, 3)}"


def _lines(rows: list[list[str]], texts: int) -> str:
    """Return a Markdown table, whose first `texts` columns are texts and whose others are numbers."""
    rule = ["---" if index < texts else "---:" for index in range(len(rows[0]))]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in (rows[0], rule, *rows[1:]))
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)
