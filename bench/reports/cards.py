"""The most important figures in large letters, with the server's color beside each."""

from html import escape
from typing import Any

from reports.noise import relative
from reports.scales import number, whole_or_number
from reports.series import COLORS, UNITS

_MEASURES = (("ttft_ms", "TTFT p50"), ("itl_ms", "ITL p50"), ("e2e_ms", "End-to-end p50"))
_TAILS = ("p99", "p95", "p90", "max")


def cards(result: dict[str, Any]) -> str:
    """Return the cards of a group of each target: of the knee of a sweep, or of the first one."""
    targets = result["targets"]
    name = _shown_group(targets[0])
    groups = [(COLORS[index], each["groups"][name]) for index, each in enumerate(targets) if name in each["groups"]]
    found = [_latency(title, key, groups) for key, title in _MEASURES] + [_rate(groups), _requests(groups)]
    if knees := [(COLORS[index], each["knee"]) for index, each in enumerate(targets) if each.get("knee")]:
        found.insert(0, _knee(knees))
    several = len(targets[0]["groups"]) > 1
    note = f"<p class=muted style='margin-top:16px'>Group: {escape(str(name))}</p>" if several else ""
    return f"{note}<div class=cards>{''.join(found)}</div>"


def _shown_group(target: dict[str, Any]) -> str | None:
    """Return the name of the knee's group, or of the first one."""
    knee = target.get("knee") or {}
    name = f"{knee.get('kind')} {knee.get('level') or 0:g}"
    return name if name in target["groups"] else next(iter(target["groups"]), None)


def _latency(title: str, key: str, groups: list[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for color, group in groups:
        found = group.get(key) or {}
        tail = next((point for point in _TAILS if found.get(point) is not None), None)
        tails = f"{tail} {number(found[tail])} ms" if tail else "no value"
        lines.append(_line(color, number(found.get("p50")), "ms", tails + _plus_minus(group, key), len(groups)))
    return _card(title, lines)


def _rate(groups: list[tuple[str, dict[str, Any]]]) -> str:
    key = "output_tokens_per_s"
    lines = []
    for color, group in groups:
        stream = f"{number(group.get(f'{key}_per_stream'))} per stream"
        lines.append(_line(color, number(group.get(key)), "tokens/s", stream + _plus_minus(group, key), len(groups)))
    return _card("Output", lines)


def _requests(groups: list[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for color, group in groups:
        share = group.get("goodput_share")
        more = f"{group['errors']:,} failed" + ("" if share is None else f", {100 * share:.0f}% within the objectives")
        lines.append(_line(color, f"{group['ok']:,}", "answered", more, len(groups)))
    return _card("Requests", lines)


def _knee(knees: list[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for color, knee in knees:
        condition = f"{100 * knee['attainment']:g}% meet {knee['objectives']}"
        lines.append(_line(color, whole_or_number(knee["level"]), UNITS[knee["kind"]], condition, len(knees)))
    return _card("Knee", lines)


def _plus_minus(group: dict[str, Any], key: str) -> str:
    share = relative((group.get("noise") or {}).get(key))
    return "" if share is None else f" · rounds ±{100 * share:.1f}%"


def _line(color: str, figure: str, unit: str, more: str, count: int) -> str:
    chip = f'<i class="{color}"></i>' if count > 1 else ""
    return f"<b>{chip}{figure} <small>{unit}</small></b><small>{escape(more)}</small>"


def _card(title: str, lines: list[str]) -> str:
    return f"<div><small>{title}</small>{''.join(lines)}</div>"
