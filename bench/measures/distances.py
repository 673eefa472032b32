"""Distance of a server to the limits of its machine, which `bench/floor.py` measures."""

import json
from pathlib import Path
from typing import Any


def read_floor(path: Path) -> dict[str, Any]:
    """Return the last line of the output of `bench/floor.py`. Raises ValueError, OSError."""
    try:
        found = json.loads(path.read_text().rstrip().rpartition("\n")[2])
        floor = {"bound": found["bound_tokens_per_s"]}
        return floor | {"engines": {name: each["tokens_per_s"] for name, each in found["engines"].items()}}
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not end with the JSON of bench/floor.py: {error!r}") from error


def distances(floor: dict[str, Any], groups: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tokens per second of a stream in each group, 1 / mean ITL, and their share of each limit.

    The limits are those of one stream: streams that share a step share one pass over the weights.
    """
    found = []
    for name, figures in groups.items():
        gap = (figures.get("itl_ms") or {}).get("mean")
        if gap:
            rate = 1000 / gap
            engines = {engine: round(rate / limit, 4) for engine, limit in floor["engines"].items()}
            bound = round(rate / floor["bound"], 4)
            found.append(
                {"group": name, "tokens_per_s": round(rate, 2), "of_bandwidth": bound, "of_bare_loop": engines}
            )
    return found


def distance_line(distance: dict[str, Any]) -> str:
    """Return one distance for people."""
    loops = [f"{share:.0%} of the bare loop of {engine}" for engine, share in distance["of_bare_loop"].items()]
    shares = ", ".join([f"{distance['of_bandwidth']:.0%} of what the memory bandwidth allows", *loops])
    return f"[{distance['group']}] a stream has {distance['tokens_per_s']:g} tokens/s: {shares}"
