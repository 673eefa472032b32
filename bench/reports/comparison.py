"""The change since an older run, beside the noise of both."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reports.noise import relative
from reports.scales import number

SCHEMA = 1
POINTS = ("p50", "p99")
GATED = ("p50", "")
"""Points that a budget limits: medians and rates. Tails are printed only, since they are mostly noise."""
RATES = ("output_tokens_per_s", "requests_per_s", "goodput_share")
_MACHINE = ("computer", "cpu", "cores", "usable_cores", "governor")
_SERVER = ("version", "engine", "model_hash")
_NOT_LOAD = {
    *("json", "csv", "markdown", "out", "report", "compare", "budget", "url", "vs", "serve", "pid", "restart"),
    *("ca", "insecure", "stall_timeout", "quiet", "vs_pid", "api_key", "floor"),
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
        found = "is not the result of a run; save one by --json FILE"
    raise ValueError(f"{path} {found}")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[FigureChange]:
    """Return the changes of all figures of the first server that both runs have."""
    before, after = old["targets"][0]["groups"], new["targets"][0]["groups"]
    return [change for name in after if name in before for change in _of_group(name, before[name], after[name])]


def _of_group(group: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FigureChange]:
    for figure, value in new.items():
        if figure in RATES:
            pairs = {"": (old.get(figure), value)}
        elif figure.endswith("_ms") and isinstance(value, dict) and isinstance(old.get(figure), dict):
            pairs = {point: (old[figure].get(point), value.get(point)) for point in POINTS}
        else:
            continue
        spreads = (relative((run.get("noise") or {}).get(figure)) for run in (old, new))
        noise = max((spread for spread in spreads if spread is not None), default=None)
        for point, (then, now) in pairs.items():
            if then and now is not None:
                yield FigureChange(group, figure, point, then, now, now / then - 1, noise)


def past_budget(found: list[FigureChange], budget: float | None) -> list[FigureChange]:
    """Return the changes for the worse that are larger than the budget, a share."""
    return [each for each in found if budget is not None and each.point in GATED and each.worse > budget]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return how the two runs differ, so that a change may not be the server's."""
    pairs: list[tuple[str, dict[str, Any], dict[str, Any]]] = [("settings", _load(old), _load(new))]
    for name, keys in (("machine", _MACHINE), ("server", _SERVER)):
        then, now = ({key: _facts(run, name).get(key) for key in keys} for run in (old, new))
        pairs.append((name, then, now))
    pairs.append(("server", {"model": old["targets"][0]["model"]}, {"model": new["targets"][0]["model"]}))
    return [
        f"{place}: {key.replace('_', ' ')} was {then.get(key)!r}, is {now.get(key)!r}"
        for place, then, now in pairs
        for key in now
        if key in then and then[key] != now[key]
    ]


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
    lines = [f"compared with {old['targets'][0]['url']}, {old.get('date', 'an unknown time')}"]
    lines += [f"not the same {difference}" for difference in differences(old, new)]
    lines += ["", f"{'':<44} {'old':>10} {'new':>10} {'change':>9} {'noise':>8}"]
    past = past_budget(found, budget)
    for each in found:
        label = f"{each.group} {each.figure.removesuffix('_ms')} {each.point}".rstrip()
        noise = "-" if each.noise is None or each.point == "p99" else f"±{100 * each.noise:.1f}%"
        line = f"{label:<44} {number(each.old):>10} {number(each.new):>10} {100 * each.change:>+8.1f}% {noise:>8}"
        lines.append(f"{line}  {_verdict(each, each in past)}".rstrip())
    if budget is not None:
        lines += ["", f"figures that are worse by more than {100 * budget:g}%: {len(past)}"]
    if any(each.noise is not None and each.worse <= each.noise for each in past):
        lines.append("a change within the noise is no finding: repeat the run with more --rounds on a quiet machine")
    return "\n".join(lines)


def _verdict(each: FigureChange, past: bool) -> str:
    words = ["past the budget"] if past else []
    if each.point in GATED and each.noise is not None and abs(each.change) <= each.noise:
        words.append("within the noise")
    return ", ".join(words)
