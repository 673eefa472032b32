"""Results with their records, as a run returns them, computed from records of known times."""

import random
from typing import Any

from measures import Group, ratios, summarize
from record import Record
from reports.noise import noise
from token_budget import budget

TOKENS = 12


def record(target: int, number: int, group: str, start: float, rng: random.Random, traced: bool = False) -> Record:
    """Return an answered request whose figures vary a little."""
    ttft = 0.3 * (1 + 0.2 * target) * rng.lognormvariate(0, 0.05)
    deltas = [ttft]
    for _ in range(TOKENS - 1):
        deltas.append(deltas[-1] + 0.006 * (1 + 0.1 * target) * rng.lognormvariate(0, 0.05))
    found = Record(
        target=target,
        round=number,
        group=group,
        start=start,
        first_byte=0.002,
        deltas=deltas,
        end=deltas[-1] + 0.001,
        asked_tokens=TOKENS,
        input_tokens=75,
        output_tokens=TOKENS,
        status="completed",
    )
    if traced:
        found.server_times = _times(start, deltas)
    return found


def failure(target: int, group: str, start: float) -> Record:
    return Record(target=target, group=group, start=start, error_kind="http 503", error="HTTP 503: busy")


def records(
    targets: int = 2, groups: tuple[str, ...] = ("all",), rounds: int = 3, requests: int = 6, traced: bool = False
) -> list[Record]:
    """Return the records of a run: the servers in turn, one failure of each."""
    rng, start, found = random.Random(1), 0.0, []
    for group in groups:
        for number in range(rounds):
            for target in range(targets):
                for _ in range(requests):
                    found.append(record(target, number, group, start, rng, traced))
                    start += 0.5
    return [*found, *(failure(target, groups[0], start) for target in range(targets))]


def result(found: list[Record], targets: int = 2, **more: Any) -> dict[str, Any]:
    """Return the result of records, with the fewest draws for its intervals."""
    names = list(dict.fromkeys(each.group for each in found))
    grouped = [
        {
            name: Group([each for each in found if (each.target, each.group) == (index, name)], wall=9.0 / (1 + place))
            for place, name in enumerate(names)
        }
        for index in range(targets)
    ]
    environment = {
        "machine": {"date": "2026-11-27T01:00:00+00:00", "cpu": "Intel(R) N100", "cores": 4, "governor": "performance"},
        "servers": [{"version": "0.1.0", "engine": "llamacpp", "model_hash": "ab"}] * targets,
        "load": {"busy_before": 0.0, "busy": []},
    }
    return {
        "schema": 1,
        "date": "2026-11-27T01:00:00+00:00",
        "environment": environment,
        "settings": {"load": "single", "rounds": 3, "seed": 0, "deviations": []},
        "targets": [
            {
                "url": f"http://127.0.0.1:879{index}",
                "model": "tiny<b>",
                "groups": {name: summarize(group) | {"noise": noise(group.records)} for name, group in groups.items()},
                "warnings": [],
                "within": {},
                "knee": None,
                "budget": budget([each for each in found if each.target == index]),
            }
            for index, groups in enumerate(grouped)
        ],
        "ratios": {name: ratios(grouped[0][name], grouped[1][name], draws=0) for name in names} if targets > 1 else {},
        "sweep": [],
        "errors": targets,
    } | more


def swept() -> tuple[dict[str, Any], list[Record]]:
    """Return a sweep of two servers over three levels: the knee of the first is 4, the second has none."""
    levels = {1: 1.0, 4: 0.95, 8: 0.5}
    found = records(groups=tuple(f"concurrency {level}" for level in levels), rounds=1)
    entries = [
        {
            "target": target,
            "kind": "concurrency",
            "level": float(level),
            "group": f"concurrency {level}",
            "met": met / (1 + target),
            "holds": met / (1 + target) >= 0.9,
        }
        for target in range(2)
        for level, met in levels.items()
    ]
    whole = result(found, sweep=entries)
    for target, level in zip(whole["targets"], (4.0, None), strict=True):
        objectives = "ttft <= 2000 ms, itl <= 100 ms"
        target["knee"] = {"kind": "concurrency", "level": level, "attainment": 0.9, "objectives": objectives}
    return whole, found


def _times(start: float, deltas: list[float]) -> dict[str, Any]:
    """Return the server's times of each token, and the client's, on one clock."""
    before = [deltas[0] - 0.004, *deltas[:-1]]
    stages = {"decoding": -0.0050, "decoded": -0.0010, "sampled": -0.0008, "handed_over": -0.0006}
    columns: dict[str, list[Any]] = {
        name: [round(then + 0.0055 + shift, 6) for then in before] for name, shift in stages.items()
    }
    columns |= {
        name: [round(each - shift, 6) for each in deltas] for name, shift in (("encoded", 4e-4), ("written", 2e-4))
    }
    columns["event"] = list(range(len(deltas)))
    server = {"received": start, "admitted": 0.002, "prefill_begun": 0.003, "prefill_done": columns["decoded"][0]}
    client = {"start": start, "numbers": columns["event"], "times": deltas, "parse": [3e-5] * len(deltas)}
    return {"server": server | {"tokens": columns}, "client": client}
