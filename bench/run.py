"""Measure the latency of a server, knowing only its URL.

    python bench/run.py --url 127.0.0.1:8080 --concurrency 4 --requests 20
    python bench/run.py --scenario interference --url 127.0.0.1:8080 --vs 127.0.0.1:8081 --rounds 5
    python bench/run.py --serve "responsed serve --port {port}" --sweep concurrency --slo ttft=2s,itl=100ms

It needs only the standard library, so it runs beside any server. `client.py` explains why it hardly affects its own
figures, `scenarios/` contains the scenarios and `texts.py` their texts. With `--vs` the two servers alternate, round
by round, with identical texts, and only one of them works at a time: noise affects both alike.

`single` and `concurrent` send identical texts for equal seeds, so a second run against a running server shows the gain
of a prefix cache: choose another `--seed` for cold prompts. The other scenarios use new texts in each run.
Scenarios that restart the server use the command of `--restart`, which must return after the old one has ended, or
start that of `--serve` again.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType

import result as results
from flags import client_options, parser
from play import planned_part, play
from processes import ProcessMeter, ServerProcess, is_command
from reports import Outputs, show
from target import Target, restart_command

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parser()
    args = flags.parse_args(arguments)
    if args.url is None and args.serve is None:
        flags.error("give a server: --url URL or --serve COMMAND")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            return _run(args, stack)
    except (TimeoutError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted before there was a figure", file=sys.stderr)
        return INTERRUPTED


def _run(args: argparse.Namespace, stack: ExitStack) -> int:
    """Measure, print the tables, and return the exit status. `stack` stops the servers that were started."""
    planned_part(args)  # wrong flags are found before a server is started
    outputs = Outputs(args)
    targets, meters = [], []
    for url, command, pid in _servers(args):
        target, meter = _target(url, command, pid, args, stack)
        targets.append(target)
        meters.append(meter)
    outputs.watch(targets, [None if meter is None else meter.pid for meter in meters])
    played = play(targets, meters, args)
    records = results.all_records(played.groups)
    if played.interrupted and not records:
        raise KeyboardInterrupt
    result = results.build(targets, meters, played, args)
    outputs.complete(result, targets, records)
    status = outputs.write(result, records)  # before stdout, which may be a pipe that nobody reads any more
    if not outputs.replaces_tables:
        show(result)
    outputs.show(result)
    print(json.dumps(result))
    return INTERRUPTED if played.interrupted else status


def _servers(args: argparse.Namespace) -> list[tuple[str | None, str | None, int | None]]:
    """Return URL, command and process id of each server."""
    found = [(args.url, args.serve, args.pid)]
    if args.vs is not None:
        found.append((None, args.vs, args.vs_pid) if is_command(args.vs) else (args.vs, None, args.vs_pid))
    return found


def _target(
    url: str | None, command: str | None, pid: int | None, args: argparse.Namespace, stack: ExitStack
) -> tuple[Target, ProcessMeter | None]:
    """Return a server, started if there is a command, and the meter of its process.

    Raises ValueError, which names the URL, if the server cannot be used.
    """
    restart = None if args.restart is None else restart_command(args.restart)
    process = None
    if command is not None:
        process = ServerProcess(command, url, client_options(args))
        stack.callback(process.close)
        process.start()
        url, restart = process.url, restart or process.restart
    assert url is not None
    try:
        target = Target(url, client_options(args), restart)
    except (OSError, ValueError) as error:
        raise ValueError(f"{url}: {_fault(error)}") from error
    if pid is not None:
        return target, ProcessMeter(lambda: pid)
    return target, None if process is None else ProcessMeter(lambda: process.pid)


def _fault(error: OSError | ValueError) -> str:
    """Return the fault of a server that cannot be used, and the remedy if the connection failed."""
    if not isinstance(error, OSError):
        return str(error)
    certificate = "certificate verify failed" in str(error)
    remedy = "give --ca FILE or --insecure" if certificate else "start the server, or correct the address"
    return f"{error.strerror or error}; {remedy}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
