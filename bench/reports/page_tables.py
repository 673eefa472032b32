"""The tables of the page: all figures with their formulas and their noise, ratios, and the surroundings of the run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from measures import MEASURES, POINTS, RATIO_POINTS

from reports.noise import ROUND_POINTS
from reports.rates import RATES
from reports.scales import number
from reports.series import short


def figures_table(target: dict[str, Any], name: str) -> str:
    """Return the tables of a group: latencies and rates."""
    group = target["groups"][name]
    noise = group.get("noise") or {}
    rounds = [f"rounds {point}" for point in ROUND_POINTS if noise]
    latencies = []
    for measure, (formula, _) in MEASURES.items():
        if found := group.get(f"{measure}_ms"):
            cells = [measure, f"{found['n']:,}", *(number(found.get(point)) for point in POINTS)]
            latencies.append([*cells, *_rounds(noise.get(f"{measure}_ms"), bool(noise)), formula])
    rates = [
        [words, _value(group[key]) + _range(noise.get(key)), formula]
        for key, (words, formula) in RATES.items()
        if group.get(key) is not None
    ]
    title = f"{short(target['url'])}: {name}"
    return _table(title, ["ms", "n", *POINTS, *rounds, "formula"], latencies) + _table(
        "", ["figure", "value", "formula"], rates
    )


def _rounds(spread: Mapping[str, Any] | None, several: bool) -> list[str]:
    """Return the cells of the rounds, if there are several."""
    return [number((spread or {}).get(point)) for point in ROUND_POINTS if several]


def _range(spread: Mapping[str, Any] | None) -> str:
    return f" (rounds {number(spread['min'])} to {number(spread['max'])})" if spread else ""


def _value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)


def ratios_tables(result: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of ratios: of the groups that a scenario compares, and of the two servers."""
    for target in result["targets"]:
        for name, found in (target.get("within") or {}).items():
            yield _ratios(f"{short(target['url'])}: {name}", found)
    for group, found in (result.get("ratios") or {}).items():
        first, second = (short(target["url"]) for target in result["targets"][:2])
        yield _ratios(f"{group}: {first} divided by {second}", found)


def _ratios(title: str, found: Mapping[str, Any]) -> str:
    """Return the ratios of latencies and those of rates."""
    latencies = [
        [name.removesuffix("_ms"), *(_interval(value.get(point)) for point in RATIO_POINTS)]
        for name, value in found.items()
        if "ratio" not in value
    ]
    rates = [[RATES[name][0], _interval(value)] for name, value in found.items() if "ratio" in value]
    caption = f"{title}, with 95% confidence intervals where the sample can bound them"
    return _table(caption, ["latency", *RATIO_POINTS], latencies) + (
        _table("", ["rate", "ratio"], rates) if rates else ""
    )


def _interval(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None or ratio.get("ratio") is None:
        return "-"
    if ratio["low"] is None:
        return f"{ratio['ratio']:.3f}"
    return f"{ratio['ratio']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"


def facts(result: dict[str, Any]) -> str:
    """Return the tables of the machine, the servers and the settings."""
    environment = result["environment"]
    load = {key: value for key, value in (environment.get("load") or {}).items() if key != "busy"}
    parts = {"Machine": (environment.get("machine") or {}) | load}
    for target, server in zip(result["targets"], environment.get("servers") or [], strict=False):
        parts[short(target["url"])] = server | (target.get("process") or {})
    parts["Settings"] = _effective(result["settings"])
    tables = (
        f"<div class=scroll><table class=facts><caption>{escape(title)}</caption>{_pairs(found)}</table></div>"
        for title, found in parts.items()
        if found
    )
    return f"<div class=facts-of>{''.join(tables)}</div>"


def _effective(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that need another setting which is missing."""
    uses = {"arrivals": ("rate", "sweep"), "attainment": ("sweep",), "speed": ("replay",)}
    missing = {name for name, needed in uses.items() if not any(map(settings.get, needed))}
    if settings.get("scenario") != "idle-connections":
        missing.add("idle")
    return {key: value for key, value in settings.items() if key not in missing}


def _pairs(found: Mapping[str, Any]) -> str:
    return "".join(
        f"<tr><td>{escape(_label(key))}</td><td>{escape(_plain(value))}</td></tr>"
        for key, value in found.items()
        if value not in (None, "", [], {}, False)
    )


def _label(key: str) -> str:
    return key.replace("_", " ").replace("rss mb", "RSS, MB")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(each)}" for key, each in value.items() if each not in (None, "", [], {}))
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def _table(caption: str, heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table, whose column `formula` is text and whose others are numbers."""
    head = "".join(_cell("th", each, each == "formula") for each in heads)
    body = "".join(
        f"<tr>{''.join(_cell('td', each, name == 'formula') for name, each in zip(heads, row, strict=True))}</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<div class=scroll><table>{title}<tr>{head}</tr>{body}</table></div>"


def _cell(tag: str, content: str, is_formula: bool) -> str:
    class_ = " class=formula" if is_formula else ""
    return f"<{tag}{class_}>{escape(content)}</{tag}>"
