"""The flags of the bench, with their help."""

import argparse
import sys
import textwrap
from pathlib import Path

from apis import APIS
from client import STALL_SECONDS
from load import ARRIVALS, FORMS
from play import SWEEP_OBJECTIVES
from reports import add_flags as add_output_flags
from scenarios import SCENARIOS

from flags.values import count, count_or_0, field, floor, length, levels, number_above_0, objectives, share

EXAMPLES = """\
examples:
  responsed bench --url 127.0.0.1:8080
  responsed bench --serve "responsed serve --port {port}" --sweep concurrency --slo ttft=2s,itl=100ms
  responsed bench --url 127.0.0.1:8080 --vs https://other:8000 --api chat --rounds 5 --report report.html
"""
EPILOG = """\
Exit status: 0 if all requests were answered, 1 if some failed or a figure is past --budget, 2 if a server
is unreachable or the arguments are wrong, 130 if Ctrl-C or SIGTERM ended the run, with the figures so far.
The tables are for people; the very last line of stdout is one JSON object for scripts."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all flags."""
    found = argparse.ArgumentParser(
        usage="%(prog)s --url URL | --serve COMMAND [flags]",
        prog="responsed bench" if Path(sys.argv[0]).name == "responsed bench" else "bench/run.py",
        description="Measure the latency of a server of the Responses API, Chat Completions or completions.",
        epilog=f"{EXAMPLES}\n{_scenarios()}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    found.add_argument("-h", "--help", action="help", help="Print this help and exit")
    _server(found.add_argument_group("servers"))
    load = found.add_argument_group("load")
    _load(load)
    _open_loop(load)
    _other_loads(load)
    _requests(found.add_argument_group("requests"))
    _measures(found.add_argument_group("measures"))
    outputs = found.add_argument_group("outputs")
    add_output_flags(outputs)
    outputs.add_argument("--quiet", action="store_true", help="Print no progress line on stderr")
    return found


def _scenarios() -> str:
    """Return each scenario with the first sentence of its documentation."""
    lines = ["scenarios:"]
    for name, play in SCENARIOS.items():
        sentence = (play.__doc__ or "").strip().partition(".\n")[0].split(". ")[0]
        words = " ".join(sentence.split()).rstrip(".").replace("`", "")
        lines.append(textwrap.fill(f"{name:<17} {words}", 100, initial_indent="  ", subsequent_indent=" " * 20))
    return "\n".join([*lines, ""])


def _server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--url",
        metavar="URL",
        help="Server to measure: http://HOST:PORT, https://HOST:PORT or unix:PATH; http:// may be missing",
    )
    add("--serve", metavar="COMMAND", help="Start this server and stop it at the end; {port} in it is a free port")
    add(
        "--vs",
        metavar="URL|COMMAND",
        help="Other server to alternate and compare with; with a space, a command",
    )
    add(
        "--restart",
        metavar="COMMAND",
        help="Command that restarts the server, such as: systemctl restart responsed (default: that of --serve)",
    )
    add("--api", choices=APIS, default="responses", help="API to measure (default: %(default)s)")
    add("--api-key", metavar="KEY", help="API key to send to the servers, as a bearer token")
    add("--ca", type=Path, metavar="FILE", help="File with the certificates to trust for https (default: the system's)")
    add("--insecure", action="store_true", help="Accept any certificate of the servers")
    add("--model", metavar="NAME", help="Model to ask (default: the first of /v1/models)")


def _load(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--scenario",
        choices=SCENARIOS,
        metavar="NAME",
        default="single",
        help="What to play (default: %(default)s): " + ", ".join(SCENARIOS),
    )
    add("--rounds", type=count, default=1, metavar="N", help="Rounds to play, counted together (default: %(default)s)")
    add(
        "--concurrency",
        type=count,
        default=1,
        metavar="N",
        help="Number of parallel streams, of single, --duration and --soak (default: %(default)s)",
    )
    add(
        "--requests",
        type=count,
        default=20,
        metavar="N",
        help="Requests of a round or level, of single, concurrent, constrained, forms, --rate and --sweep "
        "(default: %(default)s)",
    )
    add(
        "--duration",
        type=number_above_0,
        metavar="SECONDS",
        help="Send requests for this many seconds instead of a number of them",
    )


def _open_loop(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--rate",
        type=number_above_0,
        metavar="R",
        help="Start R requests a second at planned times, an open loop; latency counts from them",
    )
    add(
        "--arrivals",
        choices=ARRIVALS,
        default="poisson",
        help="Distribution of the planned times of an open loop (default: %(default)s)",
    )
    add(
        "--max-concurrency",
        type=count,
        metavar="N",
        help="Let requests of an open loop wait while N are in progress (default: no limit)",
    )


def _other_loads(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--sweep",
        type=levels,
        metavar="concurrency|rate[=N,...]",
        help="Raise the load until less than --attainment of the requests meet --slo "
        f"(default there: {SWEEP_OBJECTIVES}), and name the knee; a sweep of rates begins at --rate",
    )
    add(
        "--attainment",
        type=share,
        default=0.9,
        metavar="SHARE",
        help="Share of the requests of --sweep, 0 to 1 (default: %(default)s)",
    )
    add("--replay", type=Path, metavar="FILE", help="Play a recorded trace, JSONL with arrival times")
    add(
        "--speed",
        type=number_above_0,
        default=1.0,
        metavar="FACTOR",
        help="Divide the arrival times of --replay by this (default: %(default)s)",
    )
    add(
        "--soak",
        type=number_above_0,
        metavar="SECONDS",
        help="Play a load for this many seconds, in ten parts; the last is compared with the first",
    )
    add(
        "--idle",
        type=count,
        default=200,
        metavar="N",
        help="Open connections of idle-connections (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="Seed of the random texts and times (default: %(default)s)")
    add(
        "--warmup",
        type=count_or_0,
        default=1,
        metavar="N",
        help="Requests before the first round, not counted (default: %(default)s)",
    )


def _requests(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--tokens",
        type=count,
        default=64,
        metavar="N",
        help="Maximum tokens of each answer of single, concurrent and constrained (default: %(default)s)",
    )
    add(
        "--prompt-words",
        type=count,
        default=50,
        metavar="N",
        help="Words of a prompt of single, concurrent, constrained and forms (default: %(default)s)",
    )
    add("--input-tokens", type=length, metavar="LENGTH", help=f"Tokens of a prompt, by the server's counts: {FORMS}")
    add(
        "--output-tokens",
        type=length,
        metavar="LENGTH",
        help="Maximum tokens of each answer, in the same forms; replaces --tokens",
    )
    add("--ignore-eos", action="store_true", help="Send ignore_eos: true, so that answers have their full length")
    add("--no-store", action="store_true", help="Send store: false, which clients do not send by default")
    add("--temperature", type=float, metavar="T", help="Send this temperature, which clients do not send by default")
    add(
        "--field",
        type=field,
        action="append",
        metavar="NAME=JSON",
        help="Send another field, such as top_k=1 (repeatable)",
    )
    add("--no-keep-alive", action="store_true", help="Open a connection for each request, unlike most clients")
    add(
        "--stall-timeout",
        type=count,
        default=int(STALL_SECONDS),
        metavar="SECONDS",
        help="Seconds without data after which a stream has failed (default: %(default)s)",
    )


def _measures(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--slo",
        type=objectives,
        metavar="NAME=TIME,...",
        help="Objectives of a request, such as ttft=200ms,itl=30ms, for goodput",
    )
    add("--trace", action="store_true", help="Ask `responsed serve --token-times true` where the time of a token goes")
    add(
        "--floor",
        type=floor,
        metavar="FILE",
        help="File with the output of bench/floor.py; the tables end with the distance to it",
    )
    add(
        "--pid",
        type=count,
        metavar="N",
        help="Id of the server's process, to measure its memory, CPU time and threads (default: that of --serve)",
    )
    add("--vs-pid", type=count, metavar="N", help="Id of the other server's process")
