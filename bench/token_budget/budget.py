"""Budget of a token: stages from the server's own times (`--trace`) and the client's arrivals, on one clock.

`budget` returns, for `--json`, the report and its stacked bar:

    {"requests": 10, "tokens": 630, "clock": "shared", "clock_error_ms": 0.21,
     "token": [{"stage": "wait", "n": 620, "mean_ms": 0.07, "p50_ms": 0.06, "max_ms": 0.4, "meaning": "..."}, ...],
     "first_token": [the same: "connect", "prepare", "queue", "prefill", and the stages after the decode]}

Stages stand in the order in which a token passes them. The means of `wait`, `decode` and `sample` add up to the mean
ITL, since the next decode begins while the other stages run; all means add up to the time from the token before to this
token in the client's hands. The means of `first_token` add up to the mean TTFT and the parsing.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

from record import Record
from wording import counted

from token_budget.server_times import TimedStep, arrival_of, clock_of, steps_of, times_of

AFTER_DECODE = {
    "sample": "decoded - token picked",
    "hand-over": "token picked - event loop had it",
    "encode": "event loop had it - frame made",
    "send": "frame made - kernel had it",
    "network": "kernel had it - read by the client",
    "client": "parsing of the event",
}
"""Stages after the decode -> their bounds."""
TOKEN = {
    "wait": "token before picked - decode begun: plan, other prompts",
    "decode": "decode begun - decoded",
    **AFTER_DECODE,
}
"""Stages of a token -> their bounds."""
FIRST_TOKEN = {
    "connect": "start - head of the request read",
    "prepare": "head read - admitted: body, template, tokenizer, grammar",
    "queue": "admitted - prefill begun",
    "prefill": "prefill begun - prompt evaluated",
    **AFTER_DECODE,
}
"""Stages of the first token -> their bounds."""
MILLISECONDS = 1000
Samples: TypeAlias = defaultdict[str, list[tuple[float, int]]]
"""Stage -> its seconds in each step, and the tokens of that step."""


def budget(records: Sequence[Record]) -> dict[str, Any] | None:
    """Return the budget of a token and of the first one; None if no record has the server's times."""
    traced = [record for record in records if record.server_times is not None]
    if not traced:
        return None
    clock = clock_of(traced)
    token, first_token = _samples(traced, clock.offset)
    return {
        "requests": len(traced),
        "tokens": sum(step.tokens for record in traced for step in steps_of(times_of(record)[0])),
        "clock": clock.name,
        "clock_error_ms": round(MILLISECONDS * clock.error, 3) if clock.error < math.inf else None,
        "token": _rows(TOKEN, token),
        "first_token": _rows(FIRST_TOKEN, first_token),
    }


def _rows(stages: Mapping[str, str], samples: Samples) -> list[dict[str, Any]]:
    return [_row(stage, meaning, samples[stage]) for stage, meaning in stages.items() if stage in samples]


def _samples(records: Sequence[Record], offset: float) -> tuple[Samples, Samples]:
    """Return the samples of the stages of a token, and of the first one, whose step counts as one token."""
    token, first_token = Samples(list), Samples(list)
    for record in records:
        server, client = times_of(record)
        before: TimedStep | None = None
        for step in steps_of(server):
            if (arrival := arrival_of(client, step.event)) is not None:
                stages = _after_decode(step, client, arrival, offset)
                if before is None:
                    stages |= _first(server, client, offset)
                else:
                    stages |= {"wait": step.decoding - before.sampled, "decode": step.decoded - step.decoding}
                for stage, seconds in stages.items():
                    (token if before else first_token)[stage].append((seconds, step.tokens if before else 1))
            before = step
    return token, first_token


def _after_decode(step: TimedStep, client: dict[str, Any], arrival: int, offset: float) -> dict[str, float]:
    read = client["start"] + client["times"][arrival]
    written = min(step.written + offset, read)  # a client may read the bytes before the call of the server returns
    return {
        "sample": step.sampled - step.decoded,
        "hand-over": step.handed_over - step.sampled,
        "encode": step.encoded - step.handed_over,
        "send": written - (step.encoded + offset),
        "network": read - written,
        "client": client["parse"][arrival],
    }


def _first(server: dict[str, Any], client: dict[str, Any], offset: float) -> dict[str, float]:
    return {
        "connect": server["received"] + offset - client["start"],
        "prepare": server["admitted"],
        "queue": server["prefill_begun"] - server["admitted"],
        "prefill": server["prefill_done"] - server["prefill_begun"],
    }


def _row(stage: str, meaning: str, samples: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Return the figures of a stage for a token: a step of several tokens is one value, divided by their number."""
    values = [MILLISECONDS * seconds / tokens for seconds, tokens in samples]
    mean = MILLISECONDS * sum(seconds for seconds, _ in samples) / sum(tokens for _, tokens in samples)
    figures = {"mean_ms": mean, "p50_ms": median(values), "max_ms": max(values)}
    return {
        "stage": stage,
        "n": len(values),
        **{name: round(value, 4) for name, value in figures.items()},
        "meaning": meaning,
    }


def budget_table(found: dict[str, Any] | None) -> str:
    """Return the budget for people."""
    if found is None:
        return "no times of tokens came from this server: responsed sends them if it runs with --token-times true"
    lines = [_title(found), ""]
    for name, title in (("token", "ms per token"), ("first_token", "ms to the first token")):
        total = math.fsum(row["mean_ms"] for row in found[name])
        lines.append(f"{title:<22} {'n':>6} {'mean':>9} {'share':>6} {'p50':>9} {'max':>9}  meaning")
        for row in found[name]:
            share = f"{100 * row['mean_ms'] / total:.1f}%" if total else "-"
            figures = f"{row['mean_ms']:>9.3f} {share:>6} {row['p50_ms']:>9.3f} {row['max_ms']:>9.3f}"
            lines.append(f"{row['stage']:<22} {row['n']:>6} {figures}  {row['meaning']}")
        lines += [f"{'sum':<22} {'':>6} {total:>9.3f}", ""]
    return "\n".join(lines[:-1])


def _title(found: dict[str, Any]) -> str:
    error = found["clock_error_ms"]
    clock = "the server and the bench read one clock"
    if found["clock"] == "aligned":
        clock = f"two clocks, aligned to {error} ms: what `connect` has too much, `network` has too little"
    tokens, requests = counted(found["tokens"], "token"), counted(found["requests"], "request")
    return f"times of {tokens} of {requests} by the server; {clock}"
