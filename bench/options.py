"""The flags of the bench."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from apis import APIS
from client import STALL_SECONDS
from flag_values import count, count_or_0, field, floor, length, levels, number_above_0, objectives, share
from load import ARRIVALS, FORMS
from reports.outputs import add_flags as add_output_flags
from scenarios import SCENARIOS
from target import Manners
from transport import Tls

EPILOG = """\
Exit status: 0 if all requests succeeded, 1 if some failed or a figure is past --budget, 2 if a server is unreachable or
the arguments are wrong.
The tables are for people; the very last line of stdout is one JSON object for scripts."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all flags."""
    found = argparse.ArgumentParser(
        usage="%(prog)s --url URL | --serve COMMAND [flags]",
        prog="responsed bench" if Path(sys.argv[0]).name == "responsed bench" else "bench/run.py",
        description="Measure the latency of a server of the Responses API, Chat Completions or completions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _server(found.add_argument_group("servers"))
    _load(found.add_argument_group("load"))
    _requests(found.add_argument_group("requests"))
    _measures(found.add_argument_group("measures"))
    add_output_flags(found.add_argument_group("outputs"))
    return found


def manners(args: argparse.Namespace) -> Manners:
    """Return the properties of requests and connections that the flags ask for."""
    return Manners(
        api=args.api,
        model=args.model,
        key=args.api_key,
        fields=_fields(args),
        keep_alive=not args.no_keep_alive,
        stall=args.stall_timeout,
        tls=Tls(args.ca, args.insecure),
    )


def deviations(args: argparse.Namespace) -> list[str]:
    """Return how requests differ from those that clients send by default."""
    found = [f"{name}: {json.dumps(value)}" for name, value in _fields(args).items()]
    if args.no_keep_alive:
        found.append("a connection for each request")
    if APIS[args.api].counts:
        found.append("stream_options: include_usage")
    return found


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of requests that the flags add to a client's default ones."""
    fields: dict[str, Any] = dict(args.field or ())
    if args.temperature is not None:
        fields["temperature"] = args.temperature
    if args.trace:
        fields["return_token_times"] = True
    if args.ignore_eos:
        fields["ignore_eos"] = True
    return fields | {"store": False} if args.no_store else fields


def _server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--url", help="http://HOST:PORT, https://HOST:PORT or unix:PATH; http:// and /v1 may be missing")
    add("--serve", metavar="COMMAND", help="start this server and stop it at the end; {port} in it is a free port")
    add("--vs", metavar="URL|COMMAND", help="another server to alternate and compare with; a command has a blank")
    add(
        "--restart",
        metavar="COMMAND",
        help="command that restarts the server, such as: systemctl restart responsed (default: that of --serve)",
    )
    add("--api", choices=APIS, default="responses", help="API that is measured (default: %(default)s)")
    add("--api-key", metavar="KEY", help="key for Authorization: Bearer")
    add("--ca", type=Path, metavar="FILE", help="certificates of authorities for https, instead of the system's")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--model", help="default: first model of /v1/models")


def _load(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--scenario", choices=SCENARIOS, default="single", help="default: %(default)s")
    add("--rounds", type=count, default=1, help="rounds of the scenario, counted together")
    add("--concurrency", type=count, default=1, help="number of parallel streams (single, --duration, --soak)")
    add(
        "--requests",
        type=count,
        default=20,
        help="requests of a round or of a level (single, concurrent, constrained, forms, --rate, --sweep)",
    )
    add(
        "--duration",
        type=number_above_0,
        metavar="SECONDS",
        help="send requests for a time instead of a number of them",
    )
    add(
        "--rate",
        type=number_above_0,
        metavar="R",
        help="open loop: R requests a second at planned times; latency counts from them",
    )
    add("--arrivals", choices=ARRIVALS, default="poisson", help="times of an open loop (default: %(default)s)")
    add("--max-concurrency", type=count, metavar="N", help="open loop: requests beyond N at a time wait")
    add(
        "--sweep",
        type=levels,
        metavar="concurrency|rate[=N,...]",
        help="raise the load until less than --attainment of the requests meet --slo, and name the knee",
    )
    add("--attainment", type=share, default=0.9, metavar="SHARE", help="of a sweep (default: %(default)s)")
    add("--replay", type=Path, metavar="FILE", help="play a recorded trace: JSONL with arrival times")
    add("--speed", type=number_above_0, default=1.0, metavar="FACTOR", help="of --replay (default: %(default)s)")
    add(
        "--soak",
        type=number_above_0,
        metavar="SECONDS",
        help="a long load in ten parts; the last is compared with the first",
    )
    add("--idle", type=count, default=200, metavar="N", help="connections of idle-connections (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--warmup", type=count_or_0, default=1, help="requests before the first round, not counted")


def _requests(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--tokens", type=count, default=64, help="maximum tokens of each answer (single, concurrent, constrained)")
    add("--prompt-words", type=count, default=50, help="words of a prompt (single, concurrent, constrained, forms)")
    add("--input-tokens", type=length, metavar="LENGTH", help=f"tokens of a prompt by the server's counts; {FORMS}")
    add("--output-tokens", type=length, metavar="LENGTH", help="maximum tokens of each answer, instead of --tokens")
    add("--ignore-eos", action="store_true", help="send ignore_eos: true, so that answers have their full length")
    add("--no-store", action="store_true", help="send store: false, which clients do not send by default")
    add("--temperature", type=float, help="send this temperature, which clients do not send by default")
    add("--field", type=field, action="append", metavar="NAME=JSON", help="send another field, such as top_k=1")
    add("--no-keep-alive", action="store_true", help="open a connection for each request, as clients do not")
    add(
        "--stall-timeout",
        type=count,
        default=int(STALL_SECONDS),
        metavar="SECONDS",
        help="without data after which a stream has failed (default: %(default)s)",
    )


def _measures(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--slo", type=objectives, metavar="NAME=TIME,...", help="objectives of a request, such as ttft=200ms,itl=30ms")
    add("--trace", action="store_true", help="ask `responsed serve --token-times true` where the time of a token goes")
    add("--floor", type=floor, metavar="FILE", help="output of bench/floor.py; the report ends with the distance to it")
    add("--pid", type=count, help="process of the server: memory, CPU time, threads (default: that of --serve)")
    add("--vs-pid", type=count, metavar="PID", help="process of the other server")
    add("--quiet", action="store_true", help="no progress line on stderr")
