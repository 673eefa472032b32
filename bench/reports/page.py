"""The report as one HTML page: no script, no request, all drawings inside."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from measures import distance_line
from record import Record
from wording import counted

from reports.captioned_plot import CaptionedPlot
from reports.cards import cards
from reports.notes import CUT
from reports.page_tables import facts, figures_table, ratios_tables
from reports.plots import distribution, histogram, over_time, stages, sweep, ttft_against_rate
from reports.series import series, short

MAX_ERROR_CHARACTERS = 500
"""Characters of an error that are shown."""
STYLE = Path(__file__).with_name("style.css")
_ASKS = (
    ("ttft-against-rate", "TTFT against the rate: several levels of load (--scenario concurrent, --sweep)"),
    ("sweep-", "the knee: --sweep"),
    ("token-budget", "where a token's time goes: --trace, of a server with --token-times true"),
)


NOTHING = "<p>There is nothing to plot: no request was answered.</p>"


def page(result: dict[str, Any], records: Sequence[Record]) -> str:
    """Return the page of a result with its records."""
    title = _title(result["targets"])
    body = [
        f"<header><h1>{escape(title)}</h1><p class=muted>{escape(_subtitle(result))}</p></header>",
        _warnings(result),
        cards(result),
        *_plots(result, records),
        "<h2>Figures</h2>",
        *(figures_table(target, name) for target in result["targets"] for name in target["groups"]),
        *ratios_tables(result),
        _limits(result["targets"]),
        "<h2>Machine, servers and settings</h2>",
        facts(result),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def warnings(result: dict[str, Any]) -> list[str]:
    """Return the sentences that a reader must know before the figures."""
    busy = (result["environment"].get("load") or {}).get("busy") or []
    found = [f"The run was interrupted: {CUT}."] if result.get("interrupted") else []
    found += [f"The machine is busy: {sentence}." for sentence in busy]
    for target in result["targets"]:
        found += _failures(target)
        found += [f"{short(target['url'])}: {each}." for each in target.get("warnings", [])]
    found += [
        f"Requests differ from a client's default ones: {each}." for each in result["settings"].get("deviations", [])
    ]
    return found


def _failures(target: dict[str, Any]) -> Iterator[str]:
    """Yield one sentence for each group with failed requests."""
    for name, group in target["groups"].items():
        if group.get("errors"):
            kinds = ", ".join(f"{kind}: {count}" for kind, count in group["errors_by_kind"].items())
            failed = f"{group['errors']:,} of {counted(group['errors'] + group['ok'], 'request')} failed ({kinds})"
            first = group["first_error"][:MAX_ERROR_CHARACTERS]
            yield f"{short(target['url'])}, {name}: {failed}. The first error: {first}"


def _title(targets: Sequence[dict[str, Any]]) -> str:
    """Return the models and the servers; a model that is named by its path is its file."""
    models = [str(target["model"]).rpartition("/")[2] for target in targets]
    if len({*models}) == 1:
        return f"{models[0]} on {' and '.join(short(target['url']) for target in targets)}"
    return " and ".join(f"{model} on {short(target['url'])}" for model, target in zip(models, targets, strict=True))


def _subtitle(result: dict[str, Any]) -> str:
    settings, machine = result["settings"], result["environment"].get("machine") or {}
    answered = sum(group["ok"] for target in result["targets"] for group in target["groups"].values())
    rounds = settings.get("rounds", 1)
    parts = [
        str(settings.get("load") or settings.get("scenario", "")),
        counted(answered, "answered request") + (f" in {rounds} rounds" if rounds > 1 else ""),
        f"{machine['cpu']}, {counted(machine['cores'], 'core')}" if machine.get("cpu") else "",
        (machine.get("date") or result.get("date") or "").replace("T", " ").replace("+00:00", " UTC"),
    ]
    return " · ".join(filter(None, parts))


def _warnings(result: dict[str, Any]) -> str:
    found = warnings(result)
    return f"<aside><ul>{''.join(f'<li>{escape(each)}</li>' for each in found)}</ul></aside>" if found else ""


def _limits(targets: Sequence[dict[str, Any]]) -> str:
    """Return the distance to the limits of the machine (`--floor`); empty without them."""
    lines = [
        f"{short(target['url'])} {distance_line(each)}" for target in targets for each in target.get("limits") or []
    ]
    found = "".join(f"<li>{escape(line)}.</li>" for line in lines)
    return f"<h2>Distance to the limits of the machine</h2><ul>{found}</ul>" if found else ""


def _plots(result: dict[str, Any], records: Sequence[Record]) -> Iterable[str]:
    """Yield the sections of plots: of the whole run, then of each group, if there are several."""
    targets = result["targets"]
    whole = series(targets, records)
    groups = list(dict.fromkeys(name for target in targets for name in target["groups"]))
    alone = len(groups) == 1
    found = [
        over_time(whole, "ttft", "TTFT"),
        histogram(whole) if alone else None,
        over_time(whole, "e2e", "End-to-end latency"),
        distribution(whole) if alone else None,
        ttft_against_rate(targets),
        *sweep(targets, result.get("sweep") or []),
        *stages([(short(target["url"]), target.get("budget")) for target in targets]),
    ]
    yield f"<h2>Plots</h2>{_grid(found) or NOTHING}{_missing(found)}"
    if not alone:
        yield from _group_plots(targets, records, groups)


def _group_plots(targets: Sequence[dict[str, Any]], records: Sequence[Record], groups: Sequence[str]) -> Iterator[str]:
    """Yield the section of plots of each group."""
    for number, name in enumerate(groups):
        part = series(targets, records, name)
        if grid := _grid([histogram(part, f"-{number}"), distribution(part, f"-{number}")]):
            yield f"<h2>Group: {escape(name)}</h2>{grid}"


def _grid(found: Iterable[CaptionedPlot | None]) -> str:
    markup = "".join(figure.markup() for figure in found if figure)
    return f"<div class=figures>{markup}</div>" if markup else ""


def _missing(found: Iterable[CaptionedPlot | None]) -> str:
    """Return a sentence about the plots that this run has no data for."""
    there = [figure.id for figure in found if figure]
    asks = [words for prefix, words in _ASKS if not any(name.startswith(prefix) for name in there)]
    return (
        f'<p class=muted style="margin-top:20px">Not measured in this run: {escape("; ".join(asks))}.</p>'
        if asks
        else ""
    )
