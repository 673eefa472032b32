"""Long forms of the promises: `python -m tests.soak [NAME ...] [--seconds N] [--streams N]`.

Each soak prints one line with its figures, and the reason if its promise is broken; the exit status is then 1. Servers
listen on loopback only.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from msgspec import Struct

from tests.soak import crashes, delays, full_caches, idle, memory, mutated_bytes, slots, streams
from tests.soak.bounds import Bounds

SECONDS = 3600.0


class Soak(Struct, frozen=True):
    """Promise, the function that checks it, and the number of attempts."""

    promise: str
    run: Callable[[Bounds, Path], Awaitable[str]]
    count: int


SOAKS = {
    "streams": Soak("every stream ends with exactly one terminal event", streams.run, 10_000),
    "slots": Soak("a hang-up frees its slot within one decode step", slots.run, 2_000),
    "delays": Soak("a slow or silent client delays nobody", delays.run, 50),
    "bytes": Soak("no bytes take the server down", mutated_bytes.run, 100_000),
    "memory": Soak("memory stays bounded", memory.run, 20_000),
    "idle": Soak("500 idle connections take less than 20 MB and cost no latency", idle.run, 20),
    "caches": Soak("after thousands of conversations the server is as fast as a new one", full_caches.run, 4_000),
    "crashes": Soak("after kill -9 the server is ready within the time of a start + 1 s", crashes.run, 20),
}


def check(name: str, bounds: Bounds) -> bool:
    """Run a soak, print its line, and return True if the promise is true."""
    soak, began = SOAKS[name], time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"XDG_CACHE_HOME": folder, "RESPONSED_CONFIG": os.devnull}
            figures, broken = trio.run(soak.run, bounds, Path(folder)), False
    except* (AssertionError, trio.TooSlowError) as errors:
        figures, broken = f"{soak.promise}: {first(errors)!r}", True
    print(f"{name:10} {'BROKEN' if broken else 'ok':6} {time.monotonic() - began:6.0f} s  {figures}", flush=True)
    return not broken


def first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error that is no group."""
    error = errors.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error


def main() -> int:
    promises = "\n".join(f"  {name:10} {soak.promise} ({soak.count})" for name, soak in SOAKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=f"Check promises of the server for long:\n\n{promises}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="promise to check (default: all)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds for each at most (default: 3600)")
    parser.add_argument("--streams", type=int, help="attempts for each (default: as above)")
    flags = parser.parse_args()
    if unknown := set(flags.names) - SOAKS.keys():
        parser.error(f"no such soak: {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.CRITICAL)  # the engine's faults are intended
    bounds = {name: Bounds(flags.streams or SOAKS[name].count, flags.seconds) for name in flags.names or SOAKS}
    kept = [check(name, each) for name, each in bounds.items()]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
