"""A recorded trace: JSONL with an arrival time and lengths, or a whole body, in each line.

Three forms are read: `{"at": SECONDS, "input_tokens": N, "output_tokens": N}` or `{"at": SECONDS, "body": {...}}`;
records of `--out`; and `{"timestamp": MILLISECONDS, "input_length": N, "output_length": N}` as in
https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release/traces.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True, frozen=True)
class Arrival:
    """One request of a trace. `at` is in seconds from the first one."""

    at: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    body: dict[str, Any] | None = None


def read_trace(path: Path, speed: float = 1.0) -> list[Arrival]:
    """Return the requests of a file in the order of their times, `speed` times as fast. Raises ValueError."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    found = [_arrival(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ValueError(f"{path} has no request")
    begin = min(arrival.at for arrival in found)
    moved = [Arrival((a.at - begin) / speed, a.input_tokens, a.output_tokens, a.body) for a in found]
    return sorted(moved, key=lambda arrival: arrival.at)


def _arrival(line: str, place: str) -> Arrival:
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise TypeError("no object")
        if "timestamp" in fields:
            return Arrival(fields["timestamp"] / 1000, int(fields["input_length"]), int(fields["output_length"]))
        at = fields["at"] if "at" in fields else fields["planned"] if fields.get("planned") else fields["start"]
        if (body := fields.get("body")) is not None:
            return Arrival(float(at), body=dict(body))
        return Arrival(float(at), int(fields["input_tokens"]), int(fields["output_tokens"]))
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{place}: no time with lengths or a body ({error!r})") from error
