"""The status of a server as lines of text. Pure."""

from collections.abc import Callable, Sequence

from server.monitoring import EndedAnswer, LatencyStatus, Percentiles, RunningStream, Status, UpstreamStatus

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "._-=+*%#"
"""Heights of a bar, for terminals with and without Unicode."""
SPARK = 24
"""Number of bars beside a stream."""
LATENCY_HEAD = ("", "n", "median", "p95", "p99", "max")
UPSTREAM_HEAD = ("UPSTREAM", "HEALTHY", "RUNNING", "ANSWERS", "ERRORS", "FIRST DELTA")
STREAM_HEAD = ("STATE", "CLIENT", "ROUTE", "PROMPT", "CACHED", "OUTPUT", "TTFT", "TOKENS/S", "LATEST TOKENS")
ANSWER_HEAD = ("ENDED", "CLIENT", "OUTCOME", "PROMPT", "CACHED", "OUTPUT", "TTFT", "TOKENS/S", "WHY THE CACHE MISSED")
LEFT = {"", "UPSTREAM", "HEALTHY", "STATE", "CLIENT", "ROUTE", "OUTCOME", "LATEST TOKENS", "WHY THE CACHE MISSED"}
"""Headings of columns with text."""


def lines(status: Status, width: int, height: int, blocks: str = BLOCKS) -> list[str]:
    """Return the lines, cut to the terminal's width. Answers fill the rest of its height."""
    model, memory, cache = status.model, status.memory, status.cache
    head = [
        (
            f"responsed {status.version} | {model.name} ({model.engine}) | {model.n_ctx:,} tokens of context | "
            f"up {duration(status.uptime)}"
        ),
        (
            f"slots {status.running}/{status.slots} | waiting {status.waiting}/{status.queue_limit} | "
            f"{sum(each.tokens_per_second for each in status.streams):.1f} tokens/s | "
            f"{percent(cache.cached_tokens, cache.prompt_tokens)} of prompts cached | "
            f"memory {size(memory.rss)}, {size(memory.rss - memory.file)} of its own"
        ),
        "",
        *_upstream_lines(status.upstreams or ()),
        *_latency_lines(status.latency),
        "",
        *_table_or("No requests are running.", STREAM_HEAD, [_stream_row(each, blocks) for each in status.streams]),
        "",
    ]
    answers = status.answers[: max(height - len(head) - 2, 1)]
    answer_table = _table_or("No request has ended yet.", ANSWER_HEAD, list(map(_answer_row, answers)))
    return [line[:width].rstrip() for line in (*head, *answer_table)]


def _upstream_lines(upstreams: Sequence[UpstreamStatus]) -> list[str]:
    rows = list(map(_upstream_row, upstreams))
    return [*_table([UPSTREAM_HEAD, *rows]), ""] if rows else []


def _upstream_row(each: UpstreamStatus) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (each.running, each.answers, each.errors))
    return (each.url, "yes" if each.healthy else "no", *counts, duration(each.first_delta))


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for limit, scale, unit in ((0.01, 1e-3, ".1f ms"), (1, 1e-3, ".0f ms"), (10, 1, ".1f s"), (120, 1, ".0f s")):
        if seconds < limit:
            form, name = unit.split()
            return f"{seconds / scale:{form}} {name}"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "-"


def bars(gaps: Sequence[float], blocks: str = BLOCKS) -> str:
    """Return one bar for each gap, as high as the gap is long."""
    longest = max(gaps, default=0.0) or 1.0
    return "".join(blocks[min(int(gap / longest * len(blocks)), len(blocks) - 1)] for gap in gaps)


def _latency_lines(latency: LatencyStatus) -> list[str]:
    if not latency.ttft.n and not latency.itl.n:
        return [f"No tokens in the last {latency.seconds / 60:.0f} minutes."]
    return _table([LATENCY_HEAD, *_latency_rows(latency)])


def _latency_rows(latency: LatencyStatus) -> list[tuple[str, ...]]:
    def row(name: str, each: Percentiles) -> tuple[str, ...]:
        return (name, f"{each.n:,}", *map(duration, (each.p50, each.p95, each.p99, each.max)))

    minutes = f"{latency.seconds / 60:.0f} min"
    return [row(f"first token, {minutes}", latency.ttft), row(f"between tokens, {minutes}", latency.itl)]


def _stream_row(each: RunningStream, blocks: str) -> tuple[str, ...]:
    prompt = f"{each.prompt_tokens:,}"
    if each.state == "prefill":
        prompt = f"{percent(each.evaluated_tokens, each.prompt_tokens)} of {prompt}"
    return (
        each.state,
        each.client,
        each.route,
        prompt,
        percent(each.cached_tokens, each.prompt_tokens) if each.state != "queued" else "-",
        f"{each.output_tokens:,}",
        duration(each.ttft),
        _rate(each.tokens_per_second),
        bars(each.gaps[-SPARK:], blocks) if each.state != "queued" else f"waiting for {duration(each.seconds)}",
    )


def _answer_row(each: EndedAnswer) -> tuple[str, ...]:
    return (
        f"{duration(each.age)} ago",
        each.client,
        each.outcome,
        f"{each.prompt_tokens:,}",
        percent(each.cached_tokens, each.prompt_tokens),
        f"{each.output_tokens:,}",
        duration(each.ttft),
        _rate(each.tokens_per_second),
        ", ".join(filter(None, (each.cache_miss, each.cache_miss_place))),
    )


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:.1f}" if tokens_per_second else "-"


def _table_or(sentence: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the table, or the sentence if it has no rows."""
    return _table([head, *rows]) if rows else [sentence]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows with aligned columns; the first row is the head."""
    aligned: list[Callable[[str, int], str]] = [str.ljust if name in LEFT else str.rjust for name in rows[0]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True)).rstrip()
        for row in rows
    ]
