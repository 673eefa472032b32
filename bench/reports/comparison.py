"""The change since an older run, beside the noise of both."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reports.noise import relative
from reports.rates import RATES as TABLE_RATES
from reports.scales import number

SCHEMA = 1
POINTS = ("p50", "p99")
"""Percentiles that are compared."""
GATED = ("p50", "")
"""Points that a budget limits: medians and rates. Tails are printed only, since they are mostly noise."""
RATES = ("output_tokens_per_s", "requests_per_s", "goodput_share")
"""Figures of which more is better."""
_MACHINE = ("computer", "cpu", "cores", "usable_cores", "governor")
_SERVER = ("version", "engine", "model_hash")
_NOT_LOAD = {
    *("json", "csv", "markdown", "out", "report", "compare", "budget", "url", "vs", "serve", "pid", "restart"),
    *("ca", "insecure", "stall_timeout", "quiet", "vs_pid", "api_key", "floor", "deviations"),
}
"""Settings that change neither the load nor the figures."""


@dataclass(frozen=True, slots=True)
class FigureChange:
    """One figure of a group, now and then. `change` and `noise` are shares: 0.1 is 10 %."""

    group: str
    figure: str
    point: str
    old: float
    new: float
    change: float
    noise: float | None
    """Half the range of the medians of the rounds, of the noisier run; None if neither had several rounds."""

    @property
    def worse(self) -> float:
        """Return the change in the direction in which the figure gets worse."""
        return -self.change if self.figure in RATES else self.change

    @property
    def known_noise(self) -> float | None:
        """Return the noise; None for a tail, which the medians of rounds say nothing about."""
        return self.noise if self.point in GATED else None

    @property
    def within_noise(self) -> bool:
        """True if the change is not larger than the noise."""
        return self.known_noise is not None and abs(self.change) <= self.known_noise


def read(path: Path) -> dict[str, Any]:
    """Return the result in a file: of `--json FILE`, or the stdout of a run. Raises ValueError."""
    try:
        lines = path.read_text().strip().splitlines()
        result = json.loads(lines[-1] if lines else "")
        if result["schema"] == SCHEMA and result["targets"]:
            return dict(result)
        found = f"has the schema {result['schema']!r}, not {SCHEMA}"
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError):
        found = "is not the result of a run; save one with --json FILE"
    raise ValueError(f"{path} {found}")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[FigureChange]:
    """Return the changes of all figures of the first server that both runs have."""
    before, after = old["targets"][0]["groups"], new["targets"][0]["groups"]
    return [change for name in after if name in before for change in _of_group(name, before[name], after[name])]


def _points(figure: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the points of a figure that are compared, with the values of both runs."""
    if figure in RATES:
        yield "", old, new
    elif figure.endswith("_ms") and isinstance(new, dict) and isinstance(old, dict):
        yield from ((point, old.get(point), new.get(point)) for point in POINTS)


def _noise(figure: str, *groups: Mapping[str, Any]) -> float | None:
    """Return the noise of the noisier run; None if no run had several rounds."""
    spreads = (relative((group.get("noise") or {}).get(figure)) for group in groups)
    return max((spread for spread in spreads if spread is not None), default=None)


def _of_group(group: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FigureChange]:
    for figure, value in new.items():
        noise = _noise(figure, old, new)
        for point, then, now in _points(figure, old.get(figure), value):
            if then and now is not None:
                yield FigureChange(group, figure, point, then, now, now / then - 1, noise)


def past_budget(found: list[FigureChange], budget: float | None) -> list[FigureChange]:
    """Return the changes for the worse that are larger than the budget, a share."""
    return [each for each in found if budget is not None and each.point in GATED and each.worse > budget]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return how the two runs differ, so that a change may not be the server's."""
    cut_then, cut_now = ({"interrupted": run.get("interrupted", False)} for run in (old, new))
    pairs: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("run", cut_then, cut_now),
        ("settings", _load(old), _load(new)),
    ]
    for name, keys in (("machine", _MACHINE), ("server", _SERVER)):
        then, now = ({key: _facts(run, name).get(key) for key in keys} for run in (old, new))
        pairs.append((name, then, now))
    pairs.append(("server", {"model": old["targets"][0]["model"]}, {"model": new["targets"][0]["model"]}))
    return [
        f"{place}: {key.replace('_', ' ')} was {_plain(then.get(key))}, is {_plain(now.get(key))}"
        for place, then, now in pairs
        for key in now
        if key in then and then[key] != now[key]
    ]


def _plain(value: Any) -> str:
    """Return a setting or a fact for people."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else json.dumps(value)


def _load(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.get("settings", {}).items() if key not in _NOT_LOAD}


def _facts(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    environment = run.get("environment") or {}
    found = environment.get("machine") if name == "machine" else (environment.get("servers") or [{}])[0]
    return found or {}


def as_json(found: list[FigureChange], budget: float | None) -> dict[str, Any]:
    """Return the comparison for scripts."""
    past = past_budget(found, budget)
    return {"budget": budget, "past_budget": len(past), "changes": [asdict(each) for each in found]}


def text(old: Mapping[str, Any], new: Mapping[str, Any], found: list[FigureChange], budget: float | None) -> str:
    """Return the comparison for people."""
    lines = [f"compared with the run of {old.get('date', 'an unknown time')} on {old['targets'][0]['url']}"]
    lines += [f"the runs differ: {difference}" for difference in differences(old, new)]
    lines += ["", f"{'':<44} {'old':>10} {'new':>10} {'change':>9} {'noise':>8}  finding"]
    past = past_budget(found, budget)
    for each in found:
        noise = "-" if each.known_noise is None else f"±{100 * each.known_noise:.1f}%"
        line = (
            f"{_label(each):<44} {number(each.old):>10} {number(each.new):>10} {100 * each.change:>+8.1f}% {noise:>8}"
        )
        lines.append(f"{line}  {_finding(each, each in past)}")
    return "\n".join([*lines, "", *_footnotes(found, past, budget)])


def _footnotes(found: list[FigureChange], past: list[FigureChange], budget: float | None) -> Iterator[str]:
    if any(each.known_noise is not None for each in found):
        yield "noise: half the range of the medians of the rounds, of the noisier run"
    if any(each.known_noise is None for each in found):
        yield "better? and worse?: the noise is unknown, as of every tail; give both runs --rounds 3 for the others"
    if budget is not None and past:
        yield f"past the budget of {100 * budget:g}%: {'; '.join(map(_label, past))}"
    elif budget is not None:
        yield f"no median and no rate is worse by more than the budget of {100 * budget:g}%"
    if any(each.within_noise for each in past):
        yield "a change within the noise is no finding: repeat the run with more --rounds on a quiet machine"


def _label(each: FigureChange) -> str:
    """Return the group, the figure and its unit."""
    if each.figure in TABLE_RATES:
        return f"{each.group} {TABLE_RATES[each.figure][0]}"
    return f"{each.group} {each.figure.removesuffix('_ms')} {each.point}, ms"


def _finding(each: FigureChange, past: bool) -> str:
    if not each.change:
        return "equal"
    words = "within the noise" if each.within_noise else "worse" if each.worse > 0 else "better"
    if each.known_noise is None:
        words += "?"
    return f"{words}, past the budget" if past else words
