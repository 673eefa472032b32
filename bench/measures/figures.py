"""All figures of a group of records, as an object for scripts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from record import Record

from measures.formulas import USUAL, samples
from measures.objectives import Objectives
from measures.percentiles import spread


@dataclass(slots=True)
class Group:
    """Records of all rounds that are counted together; `wall` is the seconds in which they ran."""

    records: list[Record] = field(default_factory=list)
    wall: float = 0.0
    measures: tuple[str, ...] = USUAL
    """Measures that are meaningful for this group."""

    def __iadd__(self, other: "Group") -> "Group":
        self.records += other.records
        self.wall += other.wall
        self.measures = other.measures
        return self


def summarize(group: Group, objectives: Objectives | None = None) -> dict[str, Any]:
    """Return all figures of a group for JSON; keys contain their unit. Failures are only counted."""
    good = [record for record in group.records if not record.error]
    failed = [record for record in group.records if record.error]
    return {
        "ok": len(good),
        "errors": len(failed),
        "errors_by_kind": dict(Counter(record.error_kind for record in failed)),
        "first_error": failed[0].error if failed else None,
        "ended_early": sum(ended_early(record) for record in good),
        "wall_s": round(group.wall, 4),
        "requests_per_s": rate(len(good), group.wall),
        **_tokens(good, group.wall),
        **({} if objectives is None else _goodput(objectives, group)),
        **{f"{name}_ms": spread(samples(name, good)) for name in _known_measures(group, good)},
    }


def _known_measures(group: Group, good: list[Record]) -> list[str]:
    """Return the measures of a group; the delay is known for requests that were planned."""
    is_planned = any(record.planned is not None for record in good)
    return [name for name in group.measures if name != "delay" or is_planned]


def ended_early(record: Record) -> bool:
    """True if the model ended the answer before the length that was asked for."""
    return record.status == "completed" and record.output_tokens < (record.asked_tokens or 0)


def _tokens(records: list[Record], wall: float) -> dict[str, Any]:
    """Return the counts of tokens, and the tokens per second of the group and of a stream."""
    outputs, inputs = [each.output_tokens for each in records], [each.input_tokens for each in records]
    tokens, prompts = sum(outputs), sum(inputs)
    cached = sum(record.cached_tokens for record in records)
    return {
        "input_tokens": prompts,
        "input_tokens_per_request": spread(inputs),
        "cached_share": rate(cached, prompts),
        "prefill_tokens_per_s": rate(prompts - cached, sum(r.deltas[0] for r in records if r.deltas)),
        "output_tokens": tokens,
        "output_tokens_per_request": spread(outputs),
        "output_tokens_are_deltas": any(record.counted for record in records),
        "output_tokens_per_s": rate(tokens, wall),
        "output_tokens_per_s_per_stream": rate(tokens, sum(record.end or 0.0 for record in records)),
    }


def _goodput(objectives: Objectives, group: Group) -> dict[str, Any]:
    met = sum(objectives.met(record) for record in group.records)
    return {
        "objectives_ms": {name: round(1000 * limit, 3) for name, limit in objectives.limits.items()},
        "goodput_share": rate(met, len(group.records)),
        "goodput_requests_per_s": rate(met, group.wall),
    }


def rate(count: float, per: float) -> float | None:
    """Return a quotient, rounded for JSON; None if it has no denominator."""
    return round(count / per, 3) if per else None
